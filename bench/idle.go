package main

import (
	"context"
	"errors"
	"time"
)

// idleScenario leaves a daemon alone with its children. It is looked at before
// and after, never meanwhile. A daemon that listens to the proc connector is
// woken by every process that starts or ends on the host, so what the host did
// meanwhile is counted too.
type idleScenario struct{ settle, window time.Duration }

func (s idleScenario) run(ctx context.Context, r *rig, c *contender) (_ map[string]float64, err error) {
	in, err := r.launch(c, job{slots: r.children, mode: "stay"})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.close()) }()

	if err := in.up(ctx, 1); err != nil {
		return nil, err
	}
	if err := pause(ctx, s.settle); err != nil {
		return nil, err
	}
	// The quietest of a few windows, lest other work on the host be taken for ours.
	var q window
	for i := 0; i < 3 && (i == 0 || q.hostForks >= 1); i++ {
		w, err := s.look(ctx, in.process.pid)
		if err != nil {
			return nil, err
		}
		if i == 0 || w.hostForks < q.hostForks {
			q = w
		}
	}
	pss, err := readPSS(in.process.pid)
	if err != nil {
		return nil, err
	}
	fds, err := openFiles(in.process.pid)
	if err != nil {
		return nil, err
	}
	return map[string]float64{
		"wakeups":    q.wakeups,
		"cpu":        q.cpu,
		"pss":        pss,
		"threads":    float64(q.threads),
		"fds":        float64(fds),
		"host_forks": q.hostForks,
	}, in.check()
}

// window is what went on in a stretch of time, a second.
type window struct {
	wakeups, cpu float64 // cpu in milliseconds
	hostForks    float64
	threads      int
}

func (s idleScenario) look(ctx context.Context, pid int) (window, error) {
	forks, err := hostForks()
	if err != nil {
		return window{}, err
	}
	before, err := readUsage(pid)
	if err != nil {
		return window{}, err
	}
	began := monotonic()
	if err := pause(ctx, s.window); err != nil {
		return window{}, err
	}
	after, err := readUsage(pid)
	if err != nil {
		return window{}, err
	}
	seconds := (monotonic() - began).Seconds()
	forksAfter, err := hostForks()
	if err != nil {
		return window{}, err
	}
	return window{
		wakeups:   float64(after.switches-before.switches) / seconds,
		cpu:       ms(after.cpu-before.cpu) / seconds,
		hostForks: float64(forksAfter-forks) / seconds,
		threads:   after.threads,
	}, nil
}
