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
	before, err := readUsage(in.process.pid)
	if err != nil {
		return nil, err
	}
	forks, err := hostForks()
	if err != nil {
		return nil, err
	}
	began := monotonic()
	if err := pause(ctx, s.window); err != nil {
		return nil, err
	}
	seconds := (monotonic() - began).Seconds()
	after, err := readUsage(in.process.pid)
	if err != nil {
		return nil, err
	}
	forksAfter, err := hostForks()
	if err != nil {
		return nil, err
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
		"wakeups":    float64(after.switches-before.switches) / seconds,
		"cpu":        ms(after.cpu-before.cpu) / seconds,
		"pss":        pss,
		"threads":    float64(after.threads),
		"fds":        float64(fds),
		"host_forks": float64(forksAfter-forks) / seconds,
	}, in.check()
}
