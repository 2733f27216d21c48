package main

import (
	"context"
	"errors"
	"time"
)

// stormScenario keeps children that end at once running, as fast as it goes.
type stormScenario struct {
	slots        int
	warm, window time.Duration
	attributes   bool // sentryd's entry asks for all that it can
}

func (s stormScenario) run(ctx context.Context, r *rig, c *contender) (_ map[string]float64, err error) {
	in, err := r.launch(c, job{slots: s.slots, mode: "storm", attributes: s.attributes})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.close()) }()

	err = await(ctx, time.Minute, "the first starts", func() (bool, error) {
		return in.starts() > uint64(s.slots), in.check()
	})
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, s.warm); err != nil {
		return nil, err
	}
	use, err := readUsage(in.process.pid)
	if err != nil {
		return nil, err
	}
	starts, began := in.starts(), monotonic()
	if err := pause(ctx, s.window); err != nil {
		return nil, err
	}
	starts, took := in.starts()-starts, monotonic()-began
	if err := in.check(); err != nil {
		return nil, err
	}
	if starts == 0 {
		return nil, errors.New("no starts")
	}
	after, err := readUsage(in.process.pid)
	if err != nil {
		return nil, err
	}
	return map[string]float64{
		"starts_per_second": float64(starts) / took.Seconds(),
		"cpu_per_start":     float64((after.cpu - use.cpu).Microseconds()) / float64(starts),
	}, nil
}
