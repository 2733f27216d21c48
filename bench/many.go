package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// many starts the children, kills them all at once, waits until all are back,
// and stops them.
func many(ctx context.Context, r *rig, c *contender) (map[string]float64, error) {
	return life(ctx, r, c, r.children, nil)
}

// life is the life of a daemon with n children; between tells more of it while
// all are up, if it is not nil.
func life(ctx context.Context, r *rig, c *contender, n int, between func(*instance, map[string]float64) error) (figures map[string]float64, err error) {
	in, err := r.launch(c, job{slots: n, mode: "stay"})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.close()) }()

	if err := in.up(ctx, 1); err != nil {
		return nil, err
	}
	first, last := in.startSpan()
	figures = map[string]float64{"start": ms(last - in.launched), "start_span": ms(last - first)}
	if err := pause(ctx, time.Second); err != nil { // let it come to rest
		return nil, err
	}
	if between != nil {
		if err := between(in, figures); err != nil {
			return nil, err
		}
	}

	took, err := in.massRestart(ctx)
	if err != nil {
		return nil, err
	}
	figures["mass_restart"] = ms(took)
	if err := pause(ctx, time.Second); err != nil {
		return nil, err
	}

	if took, err = in.stop(ctx); err != nil {
		return nil, err
	}
	figures["stop"] = ms(took)
	return figures, nil
}

// massRestart kills every child and returns the time from the first signal to
// the start of the last new child.
func (in *instance) massRestart(ctx context.Context) (time.Duration, error) {
	children, err := in.hold()
	if err != nil {
		return 0, err
	}
	defer release(children)
	began := monotonic()
	for i, c := range children {
		if err := unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0); err != nil {
			return 0, fmt.Errorf("kill the child of slot %d: %w", i, err)
		}
	}
	if err := in.up(ctx, 2); err != nil {
		return 0, err
	}
	_, last := in.startSpan()
	return last - began, nil
}

// stop ends the contender by TERM and returns the time until the last child
// noted its end. That all are gone is checked with their pidfds afterwards:
// watching those meanwhile would take CPU from the contender.
func (in *instance) stop(ctx context.Context) (time.Duration, error) {
	children, err := in.hold()
	if err != nil {
		return 0, err
	}
	defer release(children)
	began := monotonic()
	if err := in.signal(unix.SIGTERM); err != nil {
		return 0, err
	}
	left := children
	err = await(ctx, time.Minute, "end of all children", func() (bool, error) {
		for len(left) > 0 && left[0].ended() {
			left = left[1:]
		}
		return len(left) == 0, nil
	})
	if err != nil {
		return 0, err
	}
	last, n := in.lastExit()
	if n != in.slots {
		return 0, fmt.Errorf("%d of %d children ended by TERM, the others otherwise", n, in.slots)
	}
	return last - began, in.wait(ctx, 30*time.Second)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// hugeScenario is the same with more children, and what they cost.
type hugeScenario struct{ children int }

func (h hugeScenario) run(ctx context.Context, r *rig, c *contender) (map[string]float64, error) {
	figures, err := life(ctx, r, c, h.children, func(in *instance, figures map[string]float64) error {
		if err := pause(ctx, 5*time.Second); err != nil {
			return err
		}
		use, err := readUsage(in.process.pid)
		if err != nil {
			return err
		}
		fds, err := openFiles(in.process.pid)
		if err != nil {
			return err
		}
		pss, err := readPSS(in.process.pid)
		if err != nil {
			return err
		}
		figures["threads"] = float64(use.threads)
		figures["fds_per_child"] = float64(fds) / float64(h.children)
		figures["pss"] = pss
		return nil
	})
	delete(figures, "start_span")
	return figures, err
}
