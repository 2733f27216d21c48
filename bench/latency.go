package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// latencyScenario times restarts at a calm rate: the child notes the time just
// before it ends, and the next one its first moment in main. Between the two
// lie the kernel's exit and exec, the same for all, and the supervisor.
type latencyScenario struct {
	slots, samples int
	life           time.Duration
}

func (l latencyScenario) run(ctx context.Context, r *rig, c *contender) (_ map[string]float64, err error) {
	in, err := r.launch(c, job{slots: l.slots, mode: "live", life: l.life, samples: l.samples + 4096})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.close()) }()

	if err := in.up(ctx, 2); err != nil {
		return nil, err
	}
	first := in.sampled() // what came while the daemon was still starting up is not calm
	err = await(ctx, 2*time.Minute, fmt.Sprintf("%d restarts", l.samples), func() (bool, error) {
		return in.sampled() >= first+l.samples, in.check()
	})
	if err != nil {
		return nil, err
	}
	samples := in.samples()[first : first+l.samples]
	us := make([]float64, len(samples))
	for i, d := range samples {
		us[i] = float64(d) / float64(time.Microsecond)
	}
	return map[string]float64{"p50": quantile(us, 0.5), "p99": quantile(us, 0.99)}, nil
}
