package fsm

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the transcripts in testdata anew")

// A transcript is a text of commands, each followed by what the machine
// answered, indented. Lines that start with # are comments. The commands:
//
//	configure ENTRY [KEY=VALUE…] [restart] [; ENTRY …]   all entries; keys: see entryKeys
//	scale ENTRY N
//	start|stop NAME           NAME is an entry, or a slot as entry:0
//	restart NAME [BATCH]      one at a time without BATCH; 0 is all at once
//	signal NAME N
//	shutdown, kill
//	spawned SLOT              SLOT is entry:0, or entry:0#2 to name an incarnation
//	failed SLOT [ERRNO]
//	lost SLOT                 nobody knows what became of its start
//	exited SLOT [CODE|signal=N] [rest=N] [heir=PID]    rest: so many of its tree live on
//	crash SLOT                a descendant crashed
//	empty SLOT                the rest of the tree is gone
//	left SLOT N               so many of it live on, as a signal found
//	advance DURATION          with a tick at each deadline on the way
//	told SLOT                 its stop signal was sent
//	adopt                     go on from a snapshot, somebody else; starts not answered are kept
//	reexec                    go on from a snapshot; starts not answered are lost and asked for again
//
// After each command the slots that changed are listed, from TakeChanges.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts in testdata (%v)", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := playTranscript(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("%s: go test -update shows as a diff what is different. It is now:\n%s", file, got)
			}
		})
	}
}

// stage plays one transcript.
type stage struct {
	t   *testing.T
	m   *Machine
	now Instant
	pid int
	out bytes.Buffer
}

func playTranscript(t *testing.T, text string) string {
	st := &stage{t: t, m: New(), pid: 100}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "    ") {
			continue // what was answered last time
		}
		st.out.WriteString(line)
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		st.command(words[0], words[1:])
		st.changes()
	}
	return st.out.String()
}

func (st *stage) command(verb string, args []string) {
	switch verb {
	case "configure":
		st.step(st.configuration(args))
	case "scale":
		st.step(Scale{Entry: args[0], Count: st.number(args[1])})
	case "start":
		name, slot := st.target(args[0])
		st.step(Start{Entry: name, Slot: slot})
	case "stop":
		name, slot := st.target(args[0])
		st.step(Stop{Entry: name, Slot: slot})
	case "restart":
		name, slot := st.target(args[0])
		batch := 1
		if len(args) > 1 {
			batch = st.number(args[1])
		}
		st.step(Restart{Entry: name, Slot: slot, Batch: batch})
	case "signal":
		name, slot := st.target(args[0])
		st.step(Signal{Entry: name, Slot: slot, Signal: st.number(args[1])})
	case "shutdown":
		st.step(Shutdown{})
	case "kill":
		st.step(KillAll{})
	case "advance":
		st.advance(args[0])
	case "reexec":
		st.restore()
		st.step(Reissue{})
	case "adopt":
		st.restore()
		st.step(Retell{})
	default:
		st.fact(verb, st.id(args[0]), args[1:])
	}
}

func (st *stage) restore() {
	m, err := Restore(st.m.Snapshot())
	if err != nil {
		st.t.Fatal(err)
	}
	m.TakeChanges() // everything, which would only be noise here
	st.m = m
}

// fact tells the machine of a process.
func (st *stage) fact(verb string, id ID, args []string) {
	wall := int64(st.now)
	switch verb {
	case "spawned":
		st.pid++
		st.step(Spawned{ID: id, PID: st.pid, At: st.now, Wall: wall})
	case "failed":
		errno := "ENOENT"
		if len(args) > 0 {
			errno = args[0]
		}
		st.step(SpawnFailed{ID: id, At: st.now, Wall: wall, Errno: errno, Message: "exec: " + errno})
	case "exited":
		ev := Exited{ID: id, At: st.now, Wall: wall, TreeEmpty: true}
		for _, arg := range args {
			key, value, _ := strings.Cut(arg, "=")
			switch key {
			case "rest":
				ev.TreeEmpty = false
				for i := range st.number(value) {
					ev.Members = append(ev.Members, 1000+i)
				}
			case "heir":
				ev.Successor = st.number(value)
			case "signal":
				ev.Status = Status{Reason: ReasonSignaled, Signal: st.number(value)}
			default:
				ev.Status = Status{Reason: ReasonExited, Code: st.number(key)}
			}
		}
		st.step(ev)
	case "crash":
		st.step(DescendantCrashed{ID: id, At: st.now})
	case "told":
		st.step(Told{ID: id})
	case "lost":
		st.step(SpawnLost{ID: id, At: st.now, Wall: wall})
	case "empty":
		st.step(TreeEmpty{ID: id, At: st.now})
	case "left":
		ev := Stragglers{ID: id}
		for i := range st.number(args[0]) {
			ev.Members = append(ev.Members, 1000+i)
		}
		st.step(ev)
	default:
		st.t.Fatalf("no such command: %s", verb)
	}
}

// advance lets time pass, with a tick at each deadline on the way.
func (st *stage) advance(arg string) {
	end := st.now + st.duration(arg)
	for {
		at, ok := st.m.NextDeadline()
		if !ok || at > end {
			break
		}
		st.now = max(st.now, at)
		st.step(Tick{})
	}
	st.now = end
}

func (st *stage) step(ev Event) {
	ignored := st.m.Ignored()
	actions := st.m.Step(st.now, ev)
	for _, a := range actions {
		fmt.Fprintf(&st.out, "    %-8s %s\n", st.now, describe(a))
	}
	if st.m.Ignored() > ignored {
		fmt.Fprintf(&st.out, "    %-8s ignored\n", st.now)
	}
}

// changes lists the slots that changed, in the order of their names.
func (st *stage) changes() {
	c := st.m.TakeChanges()
	slices.SortFunc(c.Entries, func(a, b EntryChange) int { return strings.Compare(a.Name, b.Name) })
	for _, name := range c.Removed {
		fmt.Fprintf(&st.out, "      = %s is no more\n", name)
	}
	for _, e := range c.Entries {
		slices.SortStableFunc(e.Slots, func(a, b SlotStatus) int { return cmp.Compare(a.Slot, b.Slot) })
		for _, s := range e.Slots {
			if !s.Gone {
				fmt.Fprintf(&st.out, "      = %s\n", describeSlot(e.Name, s))
			}
		}
		n := make([]string, 0, numStates)
		for s := range numStates {
			if e.In(s) > 0 {
				n = append(n, fmt.Sprintf("%d %v", e.In(s), s))
			}
		}
		fmt.Fprintf(&st.out, "      = %s: %d of %d wanted up; %s\n", e.Name, e.Desired, e.Count, cmp.Or(strings.Join(n, ", "), "no slot"))
	}
}

// entryKeys set what a transcript's configuration may differ in.
var entryKeys = map[string]func(*stage, *Entry, string){
	"count":     func(st *stage, e *Entry, v string) { e.Count = st.number(v) },
	"delay":     func(st *stage, e *Entry, v string) { e.Delay = st.duration(v) },
	"uptime":    func(st *stage, e *Entry, v string) { e.MinUptime = st.duration(v) },
	"timeout":   func(st *stage, e *Entry, v string) { e.StopTimeout = st.duration(v) },
	"stop":      func(st *stage, e *Entry, v string) { e.StopSignal = st.number(v) },
	"autostart": func(st *stage, e *Entry, v string) { e.Autostart = v == "true" },
	"mode": func(_ *stage, e *Entry, v string) {
		e.StopMode = map[string]StopMode{"process": StopProcess, "group": StopGroup, "tree": StopTree}[v]
	},
	"handover": func(_ *stage, e *Entry, v string) { e.Handover = v == "true" },
	"crashes":  func(st *stage, e *Entry, v string) { e.Crashes.Failures = st.number(v) },
	"within":   func(st *stage, e *Entry, v string) { e.Crashes.Within = st.duration(v) },
	"then":     func(_ *stage, e *Entry, v string) { e.Crashes.Restart = v == "restart" },
	"policy": func(_ *stage, e *Entry, v string) {
		e.Restart = map[string]RestartPolicy{"never": RestartNever, "on-failure": RestartOnFailure}[v]
	},
}

func (st *stage) configuration(args []string) Configure {
	c := Configure{Restart: make(map[string]bool)}
	for part := range strings.SplitSeq(strings.Join(args, " "), ";") {
		words := strings.Fields(part)
		if len(words) == 0 {
			continue
		}
		e := Entry{
			Name: words[0], Count: 1, Autostart: true, Delay: time.Second,
			SuccessExitCodes: []int{0}, StopSignal: 15, StopTimeout: 10 * time.Second, StopMode: StopTree,
		}
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			if key == "restart" {
				c.Restart[e.Name] = true
				continue
			}
			set := entryKeys[key]
			if set == nil {
				st.t.Fatalf("no such key: %s", w)
			}
			set(st, &e, value)
		}
		c.Entries = append(c.Entries, e)
	}
	return c
}

func (st *stage) target(name string) (entry string, slot int) {
	entry, n, one := strings.Cut(name, ":")
	if !one {
		return entry, AllSlots
	}
	return entry, st.number(n)
}

// id names the present incarnation of a slot, unless the text names one.
func (st *stage) id(name string) ID {
	name, inc, given := strings.Cut(name, "#")
	entry, slot := st.target(name)
	id := ID{Entry: entry, Slot: slot}
	if given {
		id.Incarnation = uint64(st.number(inc))
	} else if e := st.m.entries[entry]; e != nil && e.at(slot) != nil {
		id.Incarnation = e.at(slot).inc
	}
	return id
}

func (st *stage) number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		st.t.Fatal(err)
	}
	return n
}

func (st *stage) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		st.t.Fatal(err)
	}
	return d
}
