package main

import (
	"time"

	"github.com/sentryd/sentryd/pkg/procevents"
)

// hostEvent is a fork, exec or exit of a process on this host, as `events --all`
// shows it.
type hostEvent struct {
	At      time.Time `json:"at"`
	Kind    string    `json:"kind"` // fork, exec, exit or missed
	PID     int       `json:"pid,omitempty"`
	Parent  int       `json:"parent,omitempty"` // 0 where the kernel did not tell
	Command []string  `json:"command,omitempty"`
	// DurationMS is how long a process that ended had lived; nil if it began
	// before anybody listened.
	DurationMS *float64 `json:"duration_ms,omitempty"`
	Code       *int     `json:"code,omitempty"`
	Signal     string   `json:"signal,omitempty"`
	Core       bool     `json:"core,omitempty"`
	Missed     uint64   `json:"missed,omitempty"`
}

// hostWatch makes host events of the connector's: it knows the parent, the
// beginning and the command of each process that it heard of, and tells
// processes from threads.
type hostWatch struct {
	command func(pid int) []string // as /proc has it now; nil for one that is gone
	ended   func(pid int) bool     // whether the whole process has
	wall    func(monotonic time.Duration) time.Time

	known map[int32]*hostProcess // by pid
}

type hostProcess struct {
	parent  int32
	began   time.Duration // CLOCK_MONOTONIC; 0 if before we listened
	command []string
	last    *procevents.Event // the exit of its first thread, while others go on
}

// begin takes note of a process that was there before.
func (h *hostWatch) begin(pid, parent int, command []string) {
	h.known[int32(pid)] = &hostProcess{parent: int32(parent), command: command}
}

// observe returns what an event of the connector says of a process, if
// anything.
func (h *hostWatch) observe(e *procevents.Event) (out hostEvent, ok bool) {
	switch e.Kind {
	case procevents.Fork:
		if e.IsThread() {
			return out, false
		}
		p := &hostProcess{parent: e.ParentTGID, began: e.Timestamp}
		if parent := h.known[e.ParentTGID]; parent != nil {
			p.command = parent.command // until it executes something else
		}
		h.known[e.TGID] = p
		return h.event(e, p), true
	case procevents.Exec:
		p := h.find(e.TGID)
		p.last = nil // who executes takes the place of the first thread
		if command := h.command(int(e.TGID)); command != nil {
			p.command = command
		}
		return h.event(e, p), true
	case procevents.Exit:
		return h.exit(e)
	}
	return out, false
}

// exit is of a task: the first thread of a process may end long before the
// process does, and then it ends with the last of the others.
func (h *hostWatch) exit(e *procevents.Event) (out hostEvent, ok bool) {
	p := h.known[e.TGID]
	if e.IsThread() && (p == nil || p.last == nil) {
		return out, false
	}
	if p == nil {
		p = h.find(e.TGID)
	}
	if !e.IsThread() {
		first := *e
		p.last = &first
	}
	if !h.ended(int(e.TGID)) {
		return out, false
	}
	delete(h.known, e.TGID)
	out = h.event(e, p)
	if parent := p.last.ParentTGID; parent != 0 {
		out.Parent = int(parent)
	}
	if p.began != 0 {
		ms := float64((e.Timestamp - p.began).Microseconds()) / 1000
		out.DurationMS = &ms
	}
	// All threads of a process that is ended as a whole have its status.
	switch status := p.last.ExitStatus(); {
	case status.Exited():
		code := status.ExitStatus()
		out.Code = &code
	case status.Signaled():
		out.Signal, out.Core = signalText(status.Signal()), status.CoreDump()
	}
	return out, true
}

// find returns what is known of a process, be it nothing.
func (h *hostWatch) find(pid int32) *hostProcess {
	p := h.known[pid]
	if p == nil {
		p = new(hostProcess)
		h.known[pid] = p
	}
	return p
}

func (h *hostWatch) event(e *procevents.Event, p *hostProcess) hostEvent {
	return hostEvent{
		At: h.wall(e.Timestamp), Kind: e.Kind.String(), PID: int(e.TGID), Parent: int(p.parent), Command: p.command,
	}
}

// forgetEnded drops what ended unheard, after a loss.
func (h *hostWatch) forgetEnded() {
	for pid := range h.known {
		if h.ended(int(pid)) {
			delete(h.known, pid)
		}
	}
}
