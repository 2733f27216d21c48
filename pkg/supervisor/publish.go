package supervisor

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
	"github.com/sentryd/sentryd/pkg/view"
)

// picture is the published state: written by the owner goroutine alone, read by
// anyone without a lock.
type picture struct {
	current atomic.Pointer[published]
}

type published struct {
	state *view.State
	next  chan struct{} // closed when a newer one is published
}

func (p *picture) load() *view.State { return p.current.Load().state }

func (p *picture) store(s *view.State) {
	old := p.current.Swap(&published{state: s, next: make(chan struct{})})
	if old != nil {
		close(old.next)
	}
}

// wait returns the first state whose version is above after, or the present one
// when ctx ends.
func (p *picture) wait(ctx context.Context, after uint64) *view.State {
	for {
		now := p.current.Load()
		if now.state.Version > after {
			return now.state
		}
		select {
		case <-now.next:
		case <-ctx.Done():
			return p.load()
		}
	}
}

// publisher turns the machine's changes into the next picture. It copies what
// changed and shares the rest with the picture before.
type publisher struct {
	version uint64
	daemon  view.Daemon
	entries []*view.Entry // sorted by name; elements are never written to once published
	// commands are the entries' commands and delays as configured.
	describe func(entry string) (command []string, delay time.Duration)
	adopted  func(fsm.ID) bool // is its process one of a daemon that died?
	wallAt   func(fsm.Instant) time.Time
}

// apply takes in what changed and returns the state to publish. Significant
// says that something of the daemon itself changed.
func (p *publisher) apply(c fsm.Changes, significant bool) *view.State {
	changed := significant || len(c.Removed) > 0 || len(c.Entries) > 0
	if len(c.Removed) > 0 || len(c.Entries) > 0 {
		p.entries = slices.Clone(p.entries)
	}
	for _, name := range c.Removed {
		if at, found := p.find(name); found {
			p.entries = slices.Delete(p.entries, at, at+1)
		}
	}
	for i := range c.Entries {
		ec := &c.Entries[i]
		at, found := p.find(ec.Name)
		if found {
			p.entries[at] = p.entry(ec, p.entries[at].Processes)
		} else {
			p.entries = slices.Insert(p.entries, at, p.entry(ec, nil))
		}
	}
	if changed {
		p.version++
	}
	s := &view.State{Version: p.version, Daemon: p.daemon, Entries: p.entries}
	if s.Entries == nil {
		s.Entries = []*view.Entry{}
	}
	return s
}

// redescribe has the next picture show every entry as it is configured now.
func (p *publisher) redescribe() {
	p.entries = slices.Clone(p.entries)
	for i, e := range p.entries {
		next := *e
		command, delay := p.describe(e.Name)
		next.Command, next.DelayMS = command, delay.Milliseconds()
		p.entries[i] = &next
	}
}

func (p *publisher) find(name string) (int, bool) {
	return slices.BinarySearchFunc(p.entries, name, func(e *view.Entry, name string) int {
		return strings.Compare(e.Name, name)
	})
}

func (p *publisher) entry(ec *fsm.EntryChange, processes []*view.Process) *view.Entry {
	command, delay := p.describe(ec.Name)
	c := &ec.Counters
	e := &view.Entry{
		Name: ec.Name, Command: command, DelayMS: delay.Milliseconds(), Count: ec.Count,
		State: overall(&ec.EntryStatus), Running: ec.In(fsm.Running), Ready: ec.In(fsm.Running),
		Starts: c.Starts, Exits: c.Exits,
		Processes: p.processes(ec.Name, processes, ec.Slots),
		Desired:   ec.Desired,
		Uptime:    histogram(c.Uptime, uptimeBounds), RestartLatency: histogram(c.RestartLatency, latencyBounds),
		EndedCPU: view.CPU{User: c.User.Seconds(), System: c.Sys.Seconds()}, OOMKills: c.OOMKills,
	}
	for s, name := range stateNames {
		e.States = append(e.States, view.LabelCount{Label: name, N: uint64(ec.States[s])})
	}
	for _, x := range c.ByStatus {
		e.ExitCounts = append(e.ExitCounts, view.ExitCount{Reason: x.Reason.String(), Code: statusCode(x.Reason, x.Number), N: x.N})
	}
	for _, f := range c.StartFailures {
		e.StartFailures = append(e.StartFailures, view.LabelCount{Label: f.Errno, N: f.N})
	}
	return e
}

// processes returns the old slots with the changed ones in their places.
func (p *publisher) processes(entry string, old []*view.Process, changes []fsm.SlotStatus) []*view.Process {
	list := make([]*view.Process, len(old), len(old)+len(changes))
	copy(list, old)
	slices.SortFunc(changes, func(a, b fsm.SlotStatus) int {
		if a.Slot != b.Slot {
			return a.Slot - b.Slot
		}
		return toInt(b.Gone) - toInt(a.Gone) // gone first: the slot may be there again
	})
	for i := range changes {
		c := &changes[i]
		at, found := slices.BinarySearchFunc(list, c.Slot, func(q *view.Process, slot int) int { return q.Slot - slot })
		switch {
		case c.Gone && found:
			list = slices.Delete(list, at, at+1)
		case c.Gone:
		case found:
			list[at] = p.process(entry, c, list[at])
		default:
			list = slices.Insert(list, at, p.process(entry, c, nil))
		}
	}
	return list
}

func (p *publisher) process(entry string, c *fsm.SlotStatus, old *view.Process) *view.Process {
	q := &view.Process{
		Slot: c.Slot, Incarnation: c.Incarnation, PID: c.PID, State: c.State.String(),
		Ready: c.State == fsm.Running, Error: c.Error, Stragglers: c.Members,
	}
	if q.Stragglers == nil {
		q.Stragglers = []int{}
	}
	if c.PID != 0 {
		at := time.Unix(0, c.StartedWall)
		q.StartedAt = &at
		q.Adopted = p.adopted(fsm.ID{Entry: entry, Slot: c.Slot, Incarnation: c.Incarnation})
	}
	if c.NextSet {
		at := p.wallAt(c.Next)
		q.NextStartAt = &at
	}
	if c.Last != nil {
		if old != nil && old.LastExit != nil && old.LastExit.Incarnation == c.Last.Incarnation {
			q.LastExit = old.LastExit
		} else {
			q.LastExit = exitRecord(c.Last)
		}
	}
	return q
}

func exitRecord(x *fsm.Exit) *view.Exit {
	r := &view.Exit{
		At: time.Unix(0, x.Wall), PID: x.PID, Incarnation: x.Incarnation, Reason: x.Reason.String(),
		Core: x.Core, OOM: x.OOM, Initiator: x.Initiator.String(), Error: x.Error, UptimeMS: x.Uptime.Milliseconds(),
	}
	switch x.Reason {
	case fsm.ReasonExited:
		code := x.Code
		r.Code = &code
	case fsm.ReasonSignaled:
		r.Signal = signalName(x.Signal)
	}
	if x.UsageSet {
		r.CPUSeconds = ptr((x.User + x.Sys).Seconds())
	}
	if x.MaxRSS > 0 {
		r.MaxRSSBytes = ptr(x.MaxRSS)
	}
	return r
}

func statusCode(r fsm.Reason, number int) string {
	switch r {
	case fsm.ReasonExited:
		return strconv.Itoa(number)
	case fsm.ReasonSignaled:
		return signalName(number)
	}
	return ""
}

// overall is the state of an entry: the first of these that any slot has.
func overall(e *fsm.EntryStatus) string {
	for _, s := range []fsm.State{fsm.Failed, fsm.Backoff, fsm.Stopping, fsm.Starting, fsm.Running, fsm.Finished} {
		if e.In(s) > 0 {
			return s.String()
		}
	}
	return view.Stopped
}

var (
	stateNames    = []string{view.Stopped, view.Starting, view.Running, view.Stopping, view.Backoff, view.Exited, view.Failed}
	uptimeBounds  = seconds(fsm.UptimeBounds)
	latencyBounds = seconds(fsm.LatencyBounds)
)

func seconds(bounds []time.Duration) []float64 {
	out := make([]float64, len(bounds))
	for i, b := range bounds {
		out[i] = b.Seconds()
	}
	return out
}

func histogram(h fsm.Histogram, bounds []float64) view.Histogram {
	v := view.Histogram{Bounds: bounds, Counts: h.Counts, Sum: h.Sum.Seconds()}
	if v.Counts == nil {
		v.Counts = make([]uint64, len(bounds)+1)
	}
	return v
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
