package supervisor

import (
	"time"

	"github.com/sentryd/sentryd/pkg/lineage"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
)

// procfs is where processes are looked at.
const procfs = "/proc"

// A listing reads all of /proc. After one there is none for three times as long
// as it took, within these bounds: a storm that loses events again and again
// is not to be made worse, and half a second after its end all is right.
const (
	listingPause    = 50 * time.Millisecond
	maxListingPause = 400 * time.Millisecond
)

// run answers what the events leave open, until stop is closed: it looks at
// processes and, after a loss, lists them all. Neither keeps the owner or the
// reader of the connector waiting.
func (d *descent) run(stop <-chan struct{}) {
	again := time.NewTimer(time.Hour)
	again.Stop()
	defer again.Stop()
	var next fsm.Instant // when a listing may be made
	for {
		select {
		case <-stop:
			return
		case <-d.stir:
		case <-again.C:
		}
		news := d.tracker.Take()
		d.pass(news.Crashes)
		for _, look := range news.Looks {
			d.answer(look)
		}
		if !news.Listing {
			continue
		}
		began := d.clock()
		if began < next {
			again.Reset(next - began)
			continue
		}
		done := d.list()
		now := d.clock()
		next = now + min(max(listingPause, 3*(now-began)), maxListingPause)
		if !done {
			again.Reset(next - now)
			continue
		}
		d.poke() // it may have given rise to news
	}
}

// pass keeps the crashes that are for the owner, and wakes it.
func (d *descent) pass(crashes []lineage.Crash[fsm.ID]) {
	if len(crashes) == 0 {
		return
	}
	d.mu.Lock()
	for _, c := range crashes {
		if a := d.ancestors[c.Key]; a != nil && a.watch {
			d.crashes = append(d.crashes, c)
		}
	}
	some := len(d.crashes) > 0
	d.mu.Unlock()
	if some {
		d.wake()
	}
}

func (d *descent) answer(look lineage.Look) {
	r, err := lineage.NewReader(procfs)
	if err == nil {
		var p lineage.Proc
		var found bool
		if p, found, err = r.Process(look.PID); err == nil {
			d.tracker.Answer(look, found, p)
			return
		}
	}
	d.tracker.Lost(d.clock()) // a listing will tell, or be tried again
}

// list brings the tracker in line with what there is, and reports whether it is.
func (d *descent) list() bool {
	cgroups := make(map[fsm.ID]string)
	d.mu.Lock()
	for id, a := range d.ancestors {
		if a.cgroup != "" {
			cgroups[id] = a.cgroup
		}
	}
	d.mu.Unlock()
	l, err := lineage.List(procfs, cgroups)
	return err == nil && d.tracker.Rebuild(l)
}
