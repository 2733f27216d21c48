package main

import (
	"context"
	"runtime/debug"
	"slices"
	"time"

	"github.com/sentryd/sentryd/pkg/view"
)

// restEvery is how long after a start, or the last look, it is looked whether all entries
// have settled: what a start leaves to be done is done by then.
const restEvery = time.Second

// restPatience is how long entries may take to settle: those of a crash loop never do.
const restPatience = 30 * time.Second

// pictures are what rest looks at.
type pictures interface {
	Picture() *view.State
	Wait(ctx context.Context, after uint64) *view.State
}

// rest calls rested once, when all entries have settled after a start or a re-exec, or
// had restPatience for that: what that took is needed no more. It returns when that is
// done, or when stop is closed.
func rest(stop <-chan struct{}, sup pictures, rested func()) {
	ctx, cancel := context.WithTimeout(context.Background(), restPatience)
	defer cancel()
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		select {
		case <-ctx.Done():
		case <-time.After(restEvery):
		}
		st := sup.Picture()
		if ctx.Err() != nil || settled(st) {
			break
		}
		sup.Wait(ctx, st.Version)
	}
	select {
	case <-stop:
	default:
		rested()
	}
}

// settled reports whether nothing is about to start or to stop.
func settled(st *view.State) bool {
	return !slices.ContainsFunc(st.Entries, func(e *view.Entry) bool {
		return slices.Contains([]string{view.Starting, view.Stopping, view.Backoff}, e.State)
	})
}

// giveBack gives back the memory that it took to start many programs, or to take
// them over: of the heap some 2 MiB with 1,000 children, which Go would give back over
// minutes, and of the program itself what has been mapped. A smaller GOGC would save as much
// of the heap, but cost every storm its speed.
func giveBack() {
	debug.FreeOSMemory()
	unmapProgram()
}
