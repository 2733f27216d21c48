package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sentryd/sentryd/pkg/api"
	"github.com/sentryd/sentryd/pkg/view"
)

// pollTimeout is how long one request waits for news.
const pollTimeout = 30 * time.Second

// retryAfter is the pause after a request that was cut: the daemon is
// executing itself anew, which takes milliseconds.
const retryAfter = 20 * time.Millisecond

// watch calls f with the state of version, or the present one when that is
// newer, and then with each later one that it can get hold of, until f says it
// is done, the daemon is gone (api.ErrNoDaemon) or silent, or ctx ends.
func (c *cli) watch(ctx context.Context, client *api.Client, version uint64, f func(*view.State) (done bool, err error)) error {
	after := max(version, 1) - 1
	for {
		asked := time.Now()
		st, err := ask(ctx, c, pollTimeout+c.answerTimeout, func(ctx context.Context) (*view.State, error) {
			return client.Wait(ctx, after, pollTimeout)
		})
		pause := time.Duration(0)
		var refused *api.Error
		var silent *silence
		switch {
		case err == nil:
			if st.Version > after {
				if done, err := f(st); done || err != nil {
					return err
				}
				after = st.Version
				// A large state in a storm of changes: leave the daemon at
				// least half of its time.
				pause = min(time.Since(asked), time.Second/10)
			}
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, api.ErrNoDaemon), errors.As(err, &refused), errors.As(err, &silent):
			return err
		default:
			pause = retryAfter
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// effect is what a command brings about.
type effect struct {
	version uint64 // in which it began
	targets []target
	before  map[target]*view.Process // every slot before the command
	scales  func(entry string) bool  // does it change nothing but the number of slots? nil: no
}

// slotsOf returns every slot of a state.
func slotsOf(st *view.State) map[target]*view.Process {
	m := make(map[target]*view.Process)
	for _, e := range st.Entries {
		for _, p := range e.Processes {
			m[target{e.Name, p.Slot}] = p
		}
	}
	return m
}

// leaves reports whether a command leaves a slot alone, whatever that does: a scale
// those that there were, unless they were about to come or go.
func (e *effect) leaves(at target, p *view.Process) bool {
	was := e.before[at]
	if e.scales == nil || !e.scales(at.entry) || was == nil || was.State == view.Stopping {
		return false
	}
	return p.State != view.Stopping && (p.State != view.Starting || was.State != view.Starting)
}

// in calls f with each slot of a state that the command is about.
func (e *effect) in(st *view.State, f func(at target, p *view.Process)) {
	for _, t := range e.targets {
		for _, p := range t.slots(st) {
			if at := (target{t.entry, p.Slot}); !e.leaves(at, p) {
				f(at, p)
			}
		}
	}
}

// settle waits until nothing of an effect is under way, and returns the state then. A
// slot that failed, or that ended again since before and waits for its next start, is an
// error at once: it may go on like that for ever. ctx is bounded by --timeout.
func (c *cli) settle(ctx context.Context, client *api.Client, e *effect) (*view.State, error) {
	var last *view.State
	err := c.watch(ctx, client, e.version, func(st *view.State) (bool, error) {
		last = st
		settled := true
		var failed failures
		e.in(st, func(at target, p *view.Process) {
			switch p.State {
			case view.Starting, view.Stopping:
				settled = false
			case view.Backoff:
				settled = false
				if was := e.before[at]; p.LastExit != nil && (was == nil || p.LastExit.Incarnation > was.Incarnation) {
					failed = append(failed, fmt.Errorf("%s: %s", at, describeExit(p.LastExit)))
				}
			case view.Failed:
				failed = append(failed, fmt.Errorf("%s: failed: %s", at, describeExit(p.LastExit)))
			}
		})
		return settled, failed.orNil()
	})
	switch {
	case !errors.Is(err, context.DeadlineExceeded):
	case last == nil:
		err = c.nothingHeard()
	default:
		err = fmt.Errorf("not done within %v: %s", c.timeout, e.underWay(last))
	}
	return last, err
}

// nothingHeard is the end of --timeout after the daemon took a command, and before any
// state that says what came of it.
func (c *cli) nothingHeard() error {
	return fmt.Errorf("the daemon took the command; nothing was heard of its effect within %v", c.timeout)
}

// underWay names the slots that a command still waits for.
func (e *effect) underWay(st *view.State) string {
	var names []string
	e.in(st, func(at target, p *view.Process) {
		switch p.State {
		case view.Starting, view.Stopping, view.Backoff:
			names = append(names, fmt.Sprintf("%s is %s", at, p.State))
		}
	})
	const shown = 5
	if len(names) > shown {
		names = append(names[:shown], fmt.Sprintf("and %d more", len(names)-shown))
	}
	return strings.Join(names, ", ")
}
