package supervisor

import (
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/logs"
	"github.com/sentryd/sentryd/pkg/sockets"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
)

// This file takes over what lives: processes, their output and their sockets.

// takeSurvivors has the processes that live watched.
func (s *Supervisor) takeSurvivors(a *adoption) {
	var list []spawn.Child
	slots := make(map[fsm.ID]*fsm.SlotSnapshot)
	for i := range a.snap.Entries {
		e := &a.snap.Entries[i]
		for j := range e.Slots {
			slots[a.idOf(e, &e.Slots[j])] = &e.Slots[j]
		}
	}
	add := func(id fsm.ID, pid, pidfd int) *child {
		s.lastToken++
		c := &child{id: id, token: s.lastToken, pid: pid, ended: pidfd < 0, survivor: true, cgroup: a.place(id).Cgroup, startedAt: slots[id].StartedAt}
		s.children[c.token], s.tokens[id] = c, c.token
		s.begin(c)
		list = append(list, spawn.Child{Token: c.token, PID: pid, PidFD: pidfd, Reaped: pidfd < 0, Survivor: true, Place: a.place(id)})
		return c
	}
	for _, id := range slices.SortedFunc(maps.Keys(a.live), compareIDs) {
		p := a.live[id]
		c := add(id, p.pid, p.pidfd)
		if c.startedAt == 0 {
			c.startedAt = p.started
		}
		s.identify(c, p.pidfd)
		s.Witness.track(c.pid, c.token, c.startedAt)
	}
	for _, id := range a.trees {
		pid := slots[id].PID
		if pid == 0 && slots[id].Last != nil {
			pid = slots[id].Last.PID
		}
		add(id, pid, -1)
	}
	for i, err := range s.Processes.Adopt(list) {
		c := s.children[list[i].Token]
		if err != nil {
			if list[i].PidFD >= 0 {
				unix.Close(list[i].PidFD)
			}
			s.lose(c, slots[c.id], err)
			continue
		}
		at := c.startedAt
		if !c.ended {
			at = s.Clock.Now()
		}
		s.descendIn(c, at, list[i].Place.Cgroup)
		if !c.ended {
			s.counts.adopted.Add(1)
		}
	}
	s.attendAll()
	// Ends that were told above come after what the machine is told of starts.
	a.events = append(a.events, s.local...)
	s.local = nil
	if len(a.live)+a.lost > 0 {
		s.Log.Info("took over from an earlier daemon", "processes", len(a.live), "ended_meanwhile", a.lost)
	}
}

func compareIDs(a, b fsm.ID) int {
	switch {
	case a.Entry != b.Entry && a.Entry < b.Entry:
		return -1
	case a.Entry != b.Entry:
		return 1
	}
	return a.Slot - b.Slot
}

// readAgain opens the FIFOs of all slots in which something ever ran: what lives
// there writes to it, or something that a stop left.
func (s *Supervisor) readAgain(a *adoption) {
	for i := range a.snap.Entries {
		e := &a.snap.Entries[i]
		for j := range e.Slots {
			slot := &e.Slots[j]
			if slot.Incarnation == 0 {
				continue
			}
			id, pid := a.idOf(e, slot), slot.PID
			if p := a.live[id]; p != nil {
				pid = p.pid
			} else if pid == 0 && slot.Last != nil {
				pid = slot.Last.PID
			}
			if err := s.Output.Adopt(logs.Key{Entry: id.Entry, Slot: id.Slot}, pid, id.Incarnation); err != nil {
				s.Log.Error("the output of a slot cannot be read", "entry", id.Entry, "slot", id.Slot, "error", err)
			}
		}
	}
}

// takeBackSockets takes the sockets that living processes were started with back
// from one of them.
func (s *Supervisor) takeBackSockets(a *adoption) {
	if a.saved == nil {
		return
	}
	for _, x := range a.saved.Sockets {
		r := sockets.Record{
			Key:    sockets.Key{Network: x.Network, Address: x.Address, ReusePort: x.ReusePort, Index: x.Index},
			Cookie: x.Cookie, Dev: x.Dev, Ino: x.Ino,
		}
		err := fmt.Errorf("no process has it")
		if fd, ok := a.Kept.Sockets[x.Cookie]; ok {
			r.FD = fd
			if err = s.Sockets.Inherit(r); err == nil {
				delete(a.Kept.Sockets, x.Cookie)
				continue
			}
		}
		for id, p := range a.live {
			l := s.launchers[id.Entry]
			if l == nil || !slices.ContainsFunc(l.sockets, func(q passedSocket) bool {
				return q.spec.Network == r.Network && q.spec.Address == r.Address && (!r.ReusePort || id.Slot == r.Index)
			}) {
				continue
			}
			if r.FD, err = sockets.Reclaim(p.pid, p.pidfd, &r); err == nil {
				err = s.Sockets.Inherit(r)
				break
			}
		}
		if err != nil {
			s.Log.Warn("a socket could not be taken back; it is opened anew for the next start", "socket", r.Key.String(), "error", err)
		}
	}
}
