package supervisor

import (
	"github.com/sentryd/sentryd/pkg/procevents"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
)

// This file is the witness's part in what obituaries.go knows. Events are taken in by
// the reader, counts come from the owner, who also asks.

// listenFor says whether the connector is asked for forks at all times. Otherwise
// it is while somebody is attended to, and a socket that was handed over may be
// from such a time.
func (w *Witness) listenFor(forks bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.exitsOnly = !forks
	if w.exitsOnly && w.conn != nil {
		w.narrow()
	}
}

// narrow has only exits sent. That it fails costs time and nothing else. mu is held.
func (w *Witness) narrow() {
	w.wide = false
	_ = w.conn.SetKinds(procevents.Exit)
}

// attend has what is heard of a survivor noted. It reports false if nothing will
// be. Its threads are to be counted after that, and the count is good in the era
// returned.
func (w *Witness) attend(pid int, t spawn.Token) (era uint64, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.obituaries.attend(int32(pid), t)
	w.attending.Store(true)
	if w.conn == nil {
		o.why = whyNotHeard
		return 0, false
	}
	if w.exitsOnly && !w.wide {
		if err := w.conn.SetKinds(procevents.Fork, procevents.Exec, procevents.Exit); err != nil {
			o.why = err.Error()
			return 0, false
		}
		w.wide = true
	}
	return w.era, true
}

// counted takes in how many threads a survivor had, unless events were lost since
// attend: then it is to be counted again.
func (w *Witness) counted(pid int, t spawn.Token, era uint64, threads int, at fsm.Instant) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if era == w.era {
		w.obituaries.count(int32(pid), t, threads, at)
	}
}

// forgetAll is for a gap in what is heard. mu is held.
func (w *Witness) forgetAll(why string) {
	w.era++
	w.obituaries.lose(why)
}

// verdict says what is known of how a survivor ended that was seen to be dead at
// an instant. If it may be told yet the owner is woken when it is, or cannot be
// any more.
func (w *Witness) verdict(pid int, t spawn.Token, at fsm.Instant) (verdict, spawn.Status, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v, st, why := w.obituaries.verdict(int32(pid), t, at)
	if v == pending {
		w.obituaries[int32(pid)].awaited = true
	}
	return v, st, why
}

// ignore ends what attend began.
func (w *Witness) ignore(pid int, t spawn.Token) {
	if !w.attending.Load() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if o := w.obituaries[int32(pid)]; o == nil || o.token != t {
		return
	}
	delete(w.obituaries, int32(pid))
	if len(w.obituaries) > 0 {
		return
	}
	w.attending.Store(false)
	if w.wide && w.conn != nil {
		w.narrow()
	}
}
