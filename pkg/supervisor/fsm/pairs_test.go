package fsm

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

type pairState struct {
	name  string
	state State
	slot  SlotSnapshot
}

// pairStates are the seven states, with the two kinds of stop that differ. Each
// is the slot web:0 in its second incarnation, at 100 s, with a delay of 1 s
// and a stop timeout of 10 s.
var pairStates = []pairState{
	{"stopped", Stopped, SlotSnapshot{Held: true}},
	{"starting", Starting, SlotSnapshot{Pending: true}},
	{"running", Running, SlotSnapshot{Live: true, Tree: true, PID: 100}},
	{"stopping", Stopping, SlotSnapshot{Live: true, Tree: true, PID: 100, StopBy: ByCommand, Held: true, DeadlineSet: true, Deadline: 110 * time.Second}},
	{"leftover", Stopping, SlotSnapshot{Tree: true, Outcome: Backoff, ExitedAt: 100 * time.Second, DeadlineSet: true, Deadline: 110 * time.Second}},
	{"backoff", Backoff, SlotSnapshot{ExitedAt: 100 * time.Second, DeadlineSet: true, Deadline: 101 * time.Second}},
	{"exited", Finished, SlotSnapshot{ExitedAt: 100 * time.Second}},
	{"failed", Failed, SlotSnapshot{ExitedAt: 100 * time.Second}},
}

// pairEvents are all events, those with a choice in each of their kinds.
var pairEvents = []struct {
	name  string
	event Event
}{
	{"tick early", Tick{}},
	{"tick due", Tick{}}, // at the deadline
	{"spawned", Spawned{ID: pairID, PID: 200, At: pairNow}},
	{"spawn failed", SpawnFailed{ID: pairID, At: pairNow, Errno: "ENOENT", Message: "exec: ENOENT"}},
	{"spawn lost", SpawnLost{ID: pairID, At: pairNow}},
	{"exited", Exited{ID: pairID, At: pairNow, TreeEmpty: true}},
	{"exited, rest", Exited{ID: pairID, At: pairNow}},
	{"tree empty", TreeEmpty{ID: pairID, At: pairNow}},
	{"handover", Exited{ID: pairID, At: pairNow, Successor: 300}},
	{"crash", DescendantCrashed{ID: pairID, At: pairNow}},
	{"stragglers", Stragglers{ID: pairID, Members: []int{300}}},
	{"configure", Configure{Entries: []Entry{pairEntry}}},
	{"reload restart", Configure{Entries: []Entry{pairEntry}, Restart: map[string]bool{"web": true}}},
	{"removed", Configure{}},
	{"start", Start{Entry: "web", Slot: AllSlots}},
	{"start slot", Start{Entry: "web", Slot: 0}},
	{"stop", Stop{Entry: "web", Slot: AllSlots}},
	{"stop slot", Stop{Entry: "web", Slot: 0}},
	{"restart", Restart{Entry: "web", Slot: AllSlots, Batch: 1}},
	{"restart slot", Restart{Entry: "web", Slot: 0}},
	{"scale same", Scale{Entry: "web", Count: 1}},
	{"scale 0", Scale{Entry: "web"}},
	{"signal", Signal{Entry: "web", Slot: AllSlots, Signal: 1}},
	{"shutdown", Shutdown{}},
	{"kill all", KillAll{}},
	{"shutdown, kill all", KillAll{}}, // after a shutdown
	{"reissue", Reissue{}},
	{"withdrawn", Withdrawn{ID: pairID}},
	{"shutdown, withdrawn", Withdrawn{ID: pairID}}, // after a shutdown
	{"told", Told{ID: pairID}},
	{"retell", Retell{}},
}

// others are the states that a row does not name.
const others = "others"

const pairNow = 100 * time.Second

var (
	pairID    = ID{Entry: "web", Incarnation: 2}
	pairEntry = Entry{Name: "web", Count: 1, Autostart: true, Delay: time.Second, SuccessExitCodes: []int{0}, StopSignal: 15, StopTimeout: 10 * time.Second, StopMode: StopTree, Handover: true, Crashes: CrashLimit{Within: time.Minute, Restart: true}}
)

func pairMachine(t *testing.T, state State, slot SlotSnapshot) *Machine {
	t.Helper()
	slot.State, slot.Incarnation = state, pairID.Incarnation
	m, err := Restore(Snapshot{Entries: []EntrySnapshot{{Entry: pairEntry, WantedCount: 1, Slots: []SlotSnapshot{slot}}}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// pairResult is the state after an event, or "same" when nothing has changed,
// and what is to be done.
func pairResult(t *testing.T, state State, slot SlotSnapshot, name string, ev Event) string {
	t.Helper()
	m := pairMachine(t, state, slot)
	if strings.HasPrefix(name, "shutdown, ") {
		m.Step(pairNow, Shutdown{})
	}
	before := m.Snapshot()
	now := pairNow
	if at, ok := m.NextDeadline(); ok && name == "tick due" {
		now = at
	}
	var did []string
	for _, a := range m.Step(now, ev) {
		switch a.(type) {
		case Entered, Scaled, EntryGone:
			// Reports of what is compared below.
		default:
			did = append(did, shorten(a))
		}
	}
	after := "no slot"
	if e := m.entries["web"]; e != nil && e.at(0) != nil {
		s := e.at(0)
		after = s.state.String()
		if s.heapAt > 0 {
			after += fmt.Sprintf(" +%v", s.deadline-now)
		}
		if s.restart {
			after += " again"
		}
	}
	switch same := m.Snapshot(); {
	case m.Ignored() > 0:
		before.Ignored++
		if !reflect.DeepEqual(before, same) {
			t.Errorf("%v, %s: ignored, and yet something changed", state, name)
		}
		after = "ignored"
	case reflect.DeepEqual(before, same):
		after = "same"
	}
	return strings.Join(append([]string{after}, did...), "; ")
}

// shorten is describe without what is the same in every pair.
func shorten(a Action) string {
	return strings.NewReplacer(
		" web:0#2", "", " of web:0#2", "", "web:0#", "#", " web:0", "", " the ", " ", "send ", "", " after 1m40s", "",
		"TERM to", "TERM", "CONT to", "CONT", "KILL to", "KILL", "HUP to", "HUP", " of#2", "", " of #2", "", "asked for by", "by",
		": no process to signal: web is not running", "", " pid 200", "",
	).Replace(describe(a))
}

func TestPairs(t *testing.T) {
	for _, ev := range pairEvents {
		row, ok := pairs[ev.name]
		if !ok {
			t.Errorf("no row for event %q", ev.name)
			continue
		}
		named := 0
		for _, st := range pairStates {
			want, ok := row[st.name]
			named += toInt(ok)
			if !ok {
				want = row[others]
			}
			if got := pairResult(t, st.state, st.slot, ev.name, ev.event); got != want {
				t.Errorf("%s, %s:\n got %q,\nwant %q", st.name, ev.name, got, want)
			}
		}
		if _, ok := row[others]; named+toInt(ok) != len(row) || ok == (named == len(pairStates)) {
			t.Errorf("%s: the row names a state that there is not, or not all of them", ev.name)
		}
	}
	if len(pairs) != len(pairEvents) {
		t.Errorf("%d rows for %d events", len(pairs), len(pairEvents))
	}
}

// A state, event or action that is added gets its part of the table.
func TestPairsAreAll(t *testing.T) {
	for s := range numStates {
		if !slices.ContainsFunc(pairStates, func(p pairState) bool { return p.state == s }) {
			t.Errorf("no column for state %v", s)
		}
	}
	have := make(map[string]bool)
	for _, p := range pairEvents {
		have[reflect.TypeOf(p.event).Name()] = true
	}
	for _, name := range implementers(t, "event.go", "event") {
		if !have[name] {
			t.Errorf("no row for event %s", name)
		}
	}
	for _, name := range implementers(t, "action.go", "action") {
		switch name {
		case "Spawn", "Send", "Release", "Started", "Ended", "HandedOver", "CrashLoop", "Entered", "Scaled", "EntryAdded", "EntryGone", "SlotGone", "Refused", "Done":
		default:
			t.Errorf("describe, and with it the transcripts, knows no action %s", name)
		}
	}
}

// implementers returns the types of a file that have the marker method.
func implementers(t *testing.T, file, method string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv != nil && fn.Name.Name == method {
			names = append(names, fn.Recv.List[0].Type.(*ast.Ident).Name)
		}
	}
	if len(names) == 0 {
		t.Fatalf("no type in %s has the method %s", file, method)
	}
	return names
}
