package main

import (
	"context"
	"runtime/debug"
	"slices"
	"time"

	"github.com/sentryd/sentryd/pkg/view"
)

// restEvery is the most often that it is looked whether all entries have settled.
const restEvery = time.Second

// rest gives back the memory that it took to start many programs, or to take them over,
// once that is done: some 2 MiB with 1,000 children, which Go would give back
// over minutes. A smaller GOGC would save as much, but cost every storm its speed.
func (d *daemon) rest() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-d.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	for st := d.sup.State(); !settled(st); st = d.sup.Wait(ctx, st.Version) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(restEvery):
		}
	}
	debug.FreeOSMemory()
}

// settled reports whether nothing is about to start or to stop.
func settled(st *view.State) bool {
	return !slices.ContainsFunc(st.Entries, func(e *view.Entry) bool {
		return slices.Contains([]string{view.Starting, view.Stopping, view.Backoff}, e.State)
	})
}
