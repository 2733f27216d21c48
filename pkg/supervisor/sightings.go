package supervisor

import (
	"slices"
	"time"

	"github.com/sentryd/sentryd/pkg/procevents"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
)

// maxUnheard bounds what a connector that says nothing, without an error, costs.
const maxUnheard = 1 << 16

// sighting is what is known of the end of a process: when the kernel says that
// it was and when it was handled, zero while that is not known. It is forgotten
// when both are.
type sighting struct {
	token   spawn.Token
	started fsm.Instant
	kernel  fsm.Instant
	handled fsm.Instant
}

// hear takes in exits. One of a task is a doubt whether the process lives: a leader
// thread may end long before its process does, and a process of many threads
// ends with the last of them.
func (w *Witness) hear(events []procevents.Event) {
	awaited, now := false, time.Now()
	w.mu.Lock()
	for i := range events {
		e := &events[i]
		awaited = w.obituaries.apply(e) || awaited
		if e.Kind != procevents.Exit {
			continue
		}
		s, ok := w.tracked[e.TGID]
		if !ok || e.Timestamp < s.started {
			continue
		}
		if s.handled != 0 {
			w.delays.observe(s.handled - e.Timestamp)
			delete(w.tracked, e.TGID)
			w.unheard--
			continue
		}
		s.kernel = e.Timestamp
		w.tracked[e.TGID] = s
		w.doubts = append(w.doubts, doubt{e.TGID, s.token, now})
	}
	w.mu.Unlock()
	if awaited {
		w.wake()
	}
}

// doubt is a process that may have ended, and since when that is known.
type doubt struct {
	pid   int32
	token spawn.Token
	since time.Time
}

// doubtFor is how long the owner may take to handle an exit before the process is
// looked at: the pidfd tells sooner, and a thousand that end at once take their time.
const doubtFor = time.Second

// resolve has the processes looked at that are in doubt for long. Only the reader calls it.
func (w *Witness) resolve() {
	if len(w.doubts) == 0 {
		return
	}
	now := time.Now()
	w.mu.Lock()
	var open []spawn.Token
	w.doubts = slices.DeleteFunc(w.doubts, func(d doubt) bool {
		s, ok := w.tracked[d.pid]
		if !ok || s.token != d.token || s.handled != 0 {
			return true
		}
		if now.Sub(d.since) < doubtFor {
			return false
		}
		open = append(open, d.token)
		return true
	})
	look := w.look
	w.mu.Unlock()
	for _, t := range open {
		look(t)
	}
}

// forgetHandled gives up waiting for news of exits that were handled. mu is
// held.
func (w *Witness) forgetHandled() {
	for pid, s := range w.tracked {
		if s.handled != 0 {
			delete(w.tracked, pid)
		}
	}
	w.unheard = 0
}

// expect makes room for n processes, before the first.
func (w *Witness) expect(n int) {
	w.mu.Lock()
	w.tracked = make(map[int32]sighting, n)
	w.mu.Unlock()
}

// track has the exit of a process heard of.
func (w *Witness) track(pid int, t spawn.Token, started fsm.Instant) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != nil {
		w.tracked[int32(pid)] = sighting{token: t, started: started}
	}
}

// handled is an exit that the owner has handled, and when.
type handled struct {
	pid   int
	token spawn.Token
	at    fsm.Instant
}

// handled notes which exits were handled, and measures how long after the
// kernel's own time of it each was, once both are known.
func (w *Witness) handled(exits []handled) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range exits {
		s, ok := w.tracked[int32(x.pid)]
		if !ok || s.token != x.token {
			continue
		}
		if s.kernel != 0 {
			w.delays.observe(x.at - s.kernel)
			delete(w.tracked, int32(x.pid))
			continue
		}
		s.handled = x.at
		w.tracked[int32(x.pid)] = s
		if w.unheard++; w.unheard > maxUnheard {
			w.forgetHandled()
		}
	}
}
