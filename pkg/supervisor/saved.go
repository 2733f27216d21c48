package supervisor

import (
	"fmt"
	"slices"
	"time"

	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
)

// The machine's state in its saved form, and back. Saved types are apart from
// running ones: this file is where they meet.

func saveMachine(snap fsm.Snapshot) state.Machine {
	m := state.Machine{Stopping: snap.Stopping, Killing: snap.Killing, Done: snap.Done, Ignored: snap.Ignored, Entries: []state.Entry{}}
	for i := range snap.Entries {
		m.Entries = append(m.Entries, saveEntry(&snap.Entries[i]))
	}
	return m
}

func saveEntry(e *fsm.EntrySnapshot) state.Entry {
	out := state.Entry{
		Name: e.Name,
		Spec: state.Spec{
			Count: e.Entry.Count, Autostart: e.Autostart, DelayNS: int64(e.Delay), MinUptimeNS: int64(e.MinUptime),
			Restart: uint8(e.Restart), SuccessExitCodes: e.SuccessExitCodes,
			StopSignal: e.StopSignal, StopTimeoutNS: int64(e.StopTimeout), StopMode: uint8(e.StopMode),
			Handover: e.Handover, CrashFailures: e.Crashes.Failures, CrashWithinNS: int64(e.Crashes.Within), CrashRestart: e.Crashes.Restart,
		},
		Count: e.WantedCount, CountBy: e.CountBy.String(), Held: e.Held, Removed: e.Removed,
		Roll:   state.Roll{Gen: e.Roll.Gen, Next: e.Roll.Next, Batch: e.Roll.Batch, By: e.Roll.By.String(), Active: e.Roll.Active},
		Totals: saveTotals(&e.Counters),
	}
	for n, r := range e.Retired {
		if out.Retired == nil {
			out.Retired = make(map[int]state.Retired)
		}
		out.Retired[n] = state.Retired{Incarnation: r.Incarnation, Held: r.Held}
	}
	out.Slots = slices.Grow(out.Slots, len(e.Slots))
	for i := range e.Slots {
		out.Slots = append(out.Slots, saveSlot(&e.Slots[i]))
	}
	return out
}

func saveTotals(c *fsm.Counters) state.Totals {
	t := state.Totals{
		Starts: c.Starts, Exits: c.Exits,
		Uptime:  state.Histogram{Counts: c.Uptime.Counts, SumNS: int64(c.Uptime.Sum)},
		Latency: state.Histogram{Counts: c.RestartLatency.Counts, SumNS: int64(c.RestartLatency.Sum)},
		UserNS:  int64(c.User), SysNS: int64(c.Sys), OOMKills: c.OOMKills,
	}
	for _, x := range c.ByStatus {
		t.ByStatus = append(t.ByStatus, state.StatusTotal{Reason: x.Reason.String(), Number: x.Number, N: x.N})
	}
	for _, f := range c.StartFailures {
		if t.StartFailures == nil {
			t.StartFailures = make(map[string]uint64)
		}
		t.StartFailures[f.Errno] = f.N
	}
	return t
}

func saveSlot(s *fsm.SlotSnapshot) state.Slot {
	out := state.Slot{
		Slot: s.Slot, Incarnation: s.Incarnation, State: s.State.String(), Held: s.Held,
		Pending: s.Pending, Live: s.Live, Tree: s.Tree, PID: s.PID,
		Restart: s.Restart, RestartBy: unless(fsm.ByProcess, s.RestartBy), StopBy: unless(fsm.ByProcess, s.StopBy), Outcome: unless(fsm.Stopped, s.Outcome), Kills: s.Kills, Told: s.Told,
		StartedAt: int64(s.StartedAt), StartedWall: s.StartedWall, ExitedAt: int64(s.ExitedAt),
		StartFails: s.StartFails, Error: s.Error, Members: s.Members, Rolling: s.Rolling, Gen: s.Gen,
	}
	for _, at := range s.Crashes {
		out.Crashes = append(out.Crashes, int64(at))
	}
	if s.DeadlineSet {
		out.Deadline = ptr(int64(s.Deadline))
	}
	if s.DueSet {
		out.Due = ptr(int64(s.Due))
	}
	if x := s.Last; x != nil {
		out.Last = &state.Exit{
			Nth: x.Nth, At: int64(x.At), Wall: x.Wall, PID: x.PID, Incarnation: x.Incarnation, Reason: x.Reason.String(),
			Code: x.Code, Signal: x.Signal, Core: x.Core, Initiator: x.Initiator.String(), Error: x.Error,
			UptimeNS: int64(x.Uptime), OOM: x.OOM, UsageSet: x.UsageSet, UserNS: int64(x.User), SysNS: int64(x.Sys), MaxRSS: x.MaxRSS,
		}
	}
	return out
}

// loadMachine is the inverse of saveMachine. It refuses words it does not know.
func loadMachine(m *state.Machine) (fsm.Snapshot, error) {
	snap := fsm.Snapshot{Stopping: m.Stopping, Killing: m.Killing, Done: m.Done, Ignored: m.Ignored}
	for i := range m.Entries {
		e, err := loadEntry(&m.Entries[i])
		if err != nil {
			return fsm.Snapshot{}, fmt.Errorf("entry %s: %w", m.Entries[i].Name, err)
		}
		snap.Entries = append(snap.Entries, e)
	}
	return snap, nil
}

func loadEntry(e *state.Entry) (fsm.EntrySnapshot, error) {
	var p parser
	out := fsm.EntrySnapshot{
		Entry: fsm.Entry{
			Name: e.Name, Count: e.Spec.Count, Autostart: e.Spec.Autostart,
			Delay: time.Duration(e.Spec.DelayNS), MinUptime: time.Duration(e.Spec.MinUptimeNS),
			Restart: fsm.RestartPolicy(e.Spec.Restart), SuccessExitCodes: e.Spec.SuccessExitCodes,
			StopSignal: e.Spec.StopSignal, StopTimeout: time.Duration(e.Spec.StopTimeoutNS), StopMode: fsm.StopMode(e.Spec.StopMode),
			Handover: e.Spec.Handover,
			Crashes:  fsm.CrashLimit{Failures: e.Spec.CrashFailures, Within: time.Duration(e.Spec.CrashWithinNS), Restart: e.Spec.CrashRestart},
		},
		WantedCount: e.Count, CountBy: p.initiator(e.CountBy), Held: e.Held, Removed: e.Removed, Retired: make(map[int]fsm.Retired),
		Roll:     fsm.RollSnapshot{Gen: e.Roll.Gen, Next: e.Roll.Next, Batch: e.Roll.Batch, By: p.initiator(e.Roll.By), Active: e.Roll.Active},
		Counters: p.totals(&e.Totals),
	}
	for i := range e.Uncounted {
		out.Counters.Count(p.exit(&e.Uncounted[i]))
	}
	for n, r := range e.Retired {
		out.Retired[n] = fsm.Retired{Incarnation: r.Incarnation, Held: r.Held}
	}
	out.Slots = slices.Grow(out.Slots, len(e.Slots))
	for i := range e.Slots {
		out.Slots = append(out.Slots, p.slot(&e.Slots[i]))
	}
	return out, p.err
}

// parser turns saved words into values and keeps the first error.
type parser struct{ err error }

func parse[T any](p *parser, what, word string, from func(string) (T, bool)) T {
	v, ok := from(word)
	if !ok && p.err == nil {
		p.err = fmt.Errorf("unknown %s %q", what, word)
	}
	return v
}

func (p *parser) initiator(word string) fsm.Initiator {
	if word == "" {
		return fsm.ByProcess
	}
	return parse(p, "initiator", word, fsm.ParseInitiator)
}

func (p *parser) totals(t *state.Totals) fsm.Counters {
	c := fsm.Counters{
		Starts: t.Starts, Exits: t.Exits,
		Uptime:         p.histogram(t.Uptime, len(fsm.UptimeBounds)),
		RestartLatency: p.histogram(t.Latency, len(fsm.LatencyBounds)),
		User:           time.Duration(t.UserNS), Sys: time.Duration(t.SysNS), OOMKills: t.OOMKills,
	}
	for _, x := range t.ByStatus {
		c.ByStatus = append(c.ByStatus, fsm.ExitCount{Reason: parse(p, "reason", x.Reason, fsm.ParseReason), Number: x.Number, N: x.N})
	}
	for errno, n := range t.StartFailures {
		c.StartFailures = append(c.StartFailures, fsm.FailureCount{Errno: errno, N: n})
	}
	c.Sort()
	return c
}

// histogram begins anew when the buckets are another version's.
func (p *parser) histogram(h state.Histogram, bounds int) fsm.Histogram {
	if len(h.Counts) != bounds+1 {
		return fsm.Histogram{}
	}
	return fsm.Histogram{Counts: slices.Clone(h.Counts), Sum: time.Duration(h.SumNS)}
}

func (p *parser) slot(s *state.Slot) fsm.SlotSnapshot {
	out := fsm.SlotSnapshot{
		Slot: s.Slot, Incarnation: s.Incarnation, State: parse(p, "state", s.State, fsm.ParseState), Held: s.Held,
		Pending: s.Pending, Live: s.Live, Tree: s.Tree, PID: s.PID,
		Restart: s.Restart, RestartBy: p.initiator(s.RestartBy), StopBy: p.initiator(s.StopBy),
		Outcome: p.outcome(s.Outcome), Kills: s.Kills, Told: s.Told,
		StartedAt: fsm.Instant(s.StartedAt), StartedWall: s.StartedWall, ExitedAt: fsm.Instant(s.ExitedAt),
		StartFails: s.StartFails, Error: s.Error, Members: s.Members, Rolling: s.Rolling, Gen: s.Gen,
	}
	for _, at := range s.Crashes {
		out.Crashes = append(out.Crashes, fsm.Instant(at))
	}
	if s.Deadline != nil {
		out.Deadline, out.DeadlineSet = fsm.Instant(*s.Deadline), true
	}
	if s.Due != nil {
		out.Due, out.DueSet = fsm.Instant(*s.Due), true
	}
	if s.Last != nil {
		out.Last = p.exit(s.Last)
	}
	return out
}

func (p *parser) exit(x *state.Exit) *fsm.Exit {
	return &fsm.Exit{
		Status: fsm.Status{
			Reason: parse(p, "reason", x.Reason, fsm.ParseReason), Code: x.Code, Signal: x.Signal, Core: x.Core,
			OOM: x.OOM, UsageSet: x.UsageSet, User: time.Duration(x.UserNS), Sys: time.Duration(x.SysNS), MaxRSS: x.MaxRSS,
		},
		At: fsm.Instant(x.At), Wall: x.Wall, PID: x.PID, Incarnation: x.Incarnation,
		Initiator: p.initiator(x.Initiator), Error: x.Error, Uptime: time.Duration(x.UptimeNS), Nth: x.Nth,
	}
}

func (p *parser) outcome(word string) fsm.State {
	if word == "" {
		return fsm.Stopped
	}
	return parse(p, "state", word, fsm.ParseState)
}

// unless returns the word for a value, or none for the usual one.
func unless[T interface {
	comparable
	String() string
}](usual, v T) string {
	if v == usual {
		return ""
	}
	return v.String()
}

func ptr[T any](v T) *T { return &v }
