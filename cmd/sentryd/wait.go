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
// is done, the daemon is gone (api.ErrNoDaemon), or ctx ends.
func watch(ctx context.Context, client *api.Client, version uint64, f func(*view.State) (done bool, err error)) error {
	after := max(version, 1) - 1
	for {
		asked := time.Now()
		st, err := client.Wait(ctx, after, pollTimeout)
		pause := time.Duration(0)
		var refused *api.Error
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
		case errors.Is(err, api.ErrNoDaemon), errors.As(err, &refused):
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

// incarnations is the last incarnation of each slot at some moment.
type incarnations map[target]uint64

func incarnationsOf(st *view.State) incarnations {
	m := make(incarnations)
	for _, e := range st.Entries {
		for _, p := range e.Processes {
			m[target{e.Name, p.Slot}] = p.Incarnation
		}
	}
	return m
}

// settle waits until nothing is under way in the targets, at or after a
// version, and returns the state then. A slot that failed, or that ended again
// since before and waits for its next start, is an error at once: it may go on
// like that for ever.
func (c *cli) settle(ctx context.Context, client *api.Client, version uint64, targets []target, before incarnations) (*view.State, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var last *view.State
	err := watch(ctx, client, version, func(st *view.State) (bool, error) {
		last = st
		settled := true
		var failed failures
		for _, t := range targets {
			for _, p := range t.slots(st) {
				at := target{t.entry, p.Slot}
				switch p.State {
				case view.Starting, view.Stopping:
					settled = false
				case view.Backoff:
					settled = false
					if p.LastExit != nil && p.LastExit.Incarnation > before[at] {
						failed = append(failed, fmt.Errorf("%s: %s", at, describeExit(p.LastExit)))
					}
				case view.Failed:
					failed = append(failed, fmt.Errorf("%s: failed: %s", at, describeExit(p.LastExit)))
				}
			}
		}
		return settled, failed.orNil()
	})
	if errors.Is(err, context.DeadlineExceeded) && last != nil {
		return last, fmt.Errorf("not done within %v: %s", c.timeout, underWay(last, targets))
	}
	return last, err
}

// underWay names the slots that a command still waits for.
func underWay(st *view.State, targets []target) string {
	var names []string
	for _, t := range targets {
		for _, p := range t.slots(st) {
			switch p.State {
			case view.Starting, view.Stopping, view.Backoff:
				names = append(names, fmt.Sprintf("%s:%d is %s", t.entry, p.Slot, p.State))
			}
		}
	}
	const shown = 5
	if len(names) > shown {
		names = append(names[:shown], fmt.Sprintf("and %d more", len(names)-shown))
	}
	return strings.Join(names, ", ")
}
