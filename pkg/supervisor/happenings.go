package supervisor

import (
	"fmt"
	"time"

	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
	"github.com/sentryd/sentryd/pkg/view"
)

// This file is where what the machine did becomes events for those who follow
// them.

// tellHappenings tells of what was done since the last time. An exit and the
// start that it leads to are told when the start has been asked for.
func (s *Supervisor) tellHappenings() {
	for _, a := range s.happenings {
		switch a := a.(type) {
		case fsm.Started:
			s.tellStarted(a)
		case fsm.CrashLoop:
			s.tellCrashes(a)
		case fsm.Ended:
			s.tellEnded(a)
		case fsm.Entered:
			s.tellEntered(a)
		case fsm.Scaled:
			s.tellEntry(view.EventScaled, a.Entry, func(e *view.Event) { e.Count, e.Initiator = ptr(a.Count), a.By.String() })
		case fsm.EntryAdded:
			s.tellEntry(view.EventAdded, a.Entry, nil)
		case fsm.EntryGone:
			s.tellEntry(view.EventRemoved, a.Entry, nil)
		}
	}
	clear(s.happenings)
	s.happenings = s.happenings[:0]
}

// happened tells of an incarnation.
func (s *Supervisor) happened(kind string, id fsm.ID, at time.Time, more func(*view.Event)) {
	e := view.Event{At: at, Kind: kind, Entry: id.Entry, Slot: ptr(id.Slot), Incarnation: id.Incarnation}
	if more != nil {
		more(&e)
	}
	s.history.add(e)
}

func (s *Supervisor) tellStarted(a fsm.Started) {
	s.happened(view.EventStarted, a.ID, time.Unix(0, a.Wall), func(e *view.Event) { e.PID = a.PID })
}

func (s *Supervisor) tellEnded(a fsm.Ended) {
	kind := view.EventExited
	if a.Exit.Reason == fsm.ReasonStartFailed {
		kind = view.EventStartFailed
	}
	s.happened(kind, a.ID, time.Unix(0, a.Exit.Wall), func(e *view.Event) {
		e.PID, e.Exit = a.Exit.PID, exitRecord(a.Exit)
	})
}

// tellCrashes tells of descendants that crash too often.
func (s *Supervisor) tellCrashes(a fsm.CrashLoop) {
	follows := "reported"
	if a.Restart {
		follows = "the slot is restarted"
	}
	s.happened(view.EventDescendantCrashes, a.ID, s.Clock.Wall(), func(e *view.Event) {
		e.Count, e.Message = ptr(a.Count), fmt.Sprintf("within %v: %s", a.Within, follows)
	})
}

func (s *Supervisor) logCrashes(a fsm.CrashLoop) {
	s.Log.Warn("what a process started crashes", "entry", a.ID.Entry, "slot", a.ID.Slot, "incarnation", a.ID.Incarnation,
		"crashes", a.Count, "within", a.Within, "restart", a.Restart)
}

// entered are the states that are told of when a slot gets there. That it runs is
// told as a start, with its pid.
var entered = map[fsm.State]string{
	fsm.Stopping: view.EventStopping, fsm.Stopped: view.EventStopped, fsm.Backoff: view.EventBackoff,
	fsm.Finished: view.EventFinished, fsm.Failed: view.EventFailed,
}

func (s *Supervisor) tellEntered(a fsm.Entered) {
	kind := entered[a.State]
	if kind == "" || a.State == fsm.Backoff && a.Next <= s.Clock.Now() {
		return // or it is left at once
	}
	s.happened(kind, a.ID, s.Clock.Wall(), func(e *view.Event) {
		switch {
		case a.State == fsm.Backoff:
			e.NextStartAt = ptr(s.publisher.wallAt(a.Next))
		case a.State == fsm.Stopping:
			e.Initiator = a.By.String()
		}
	})
}

// tellEntry tells of a whole entry.
func (s *Supervisor) tellEntry(kind, entry string, more func(*view.Event)) {
	e := view.Event{At: s.Clock.Wall(), Kind: kind, Entry: entry}
	if more != nil {
		more(&e)
	}
	s.history.add(e)
}

// tellDaemon tells of the daemon itself.
func (s *Supervisor) tellDaemon(kind, message string) {
	s.tellHappenings() // what came before
	s.history.add(view.Event{At: s.Clock.Wall(), Kind: kind, Message: message})
}

// handedOver is how many events the next image is told, for readers that the
// re-exec cut off. More would lengthen it.
const handedOver = 128

func (s *Supervisor) saveEvents() (seq uint64, events []state.Event) {
	s.tellHappenings()
	seq, last := s.history.last(handedOver)
	for i := range last {
		e := &last[i]
		out := state.Event{
			Seq: e.Seq, Wall: e.At.UnixNano(), Kind: e.Kind, Entry: e.Entry, Slot: e.Slot, Incarnation: e.Incarnation,
			PID: e.PID, NextWall: wall(e.NextStartAt), Count: e.Count, Initiator: e.Initiator, Message: e.Message,
		}
		if x := e.Exit; x != nil {
			out.Exit = &state.EventExit{
				Reason: x.Reason, Code: x.Code, Signal: x.Signal, Core: x.Core, OOM: x.OOM, Initiator: x.Initiator,
				Error: x.Error, UptimeMS: x.UptimeMS, CPUSeconds: x.CPUSeconds, MaxRSSBytes: x.MaxRSSBytes,
			}
		}
		events = append(events, out)
	}
	return seq, events
}

func loadEvents(saved []state.Event) (events []view.Event) {
	for i := range saved {
		e := &saved[i]
		out := view.Event{
			Seq: e.Seq, At: time.Unix(0, e.Wall), Kind: e.Kind, Entry: e.Entry, Slot: e.Slot, Incarnation: e.Incarnation,
			PID: e.PID, NextStartAt: state.Time(e.NextWall), Count: e.Count, Initiator: e.Initiator, Message: e.Message,
		}
		if x := e.Exit; x != nil {
			out.Exit = &view.Exit{
				At: out.At, PID: e.PID, Incarnation: e.Incarnation,
				Reason: x.Reason, Code: x.Code, Signal: x.Signal, Core: x.Core, OOM: x.OOM, Initiator: x.Initiator,
				Error: x.Error, UptimeMS: x.UptimeMS, CPUSeconds: x.CPUSeconds, MaxRSSBytes: x.MaxRSSBytes,
			}
		}
		events = append(events, out)
	}
	return events
}
