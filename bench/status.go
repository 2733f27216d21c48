package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// statusScenario runs `sentryd status` as a person would, from the start of the
// command to its end.
type statusScenario struct{ times int }

func (s statusScenario) run(ctx context.Context, r *rig, c *contender) (_ map[string]float64, err error) {
	in, err := r.launch(c, job{slots: r.children, mode: "stay"})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.close()) }()

	if err := in.up(ctx, 1); err != nil {
		return nil, err
	}
	if err := pause(ctx, time.Second); err != nil {
		return nil, err
	}
	var took []float64
	for range s.times {
		cmd := exec.CommandContext(ctx, in.program, "status", "-s", sentrydSocket(in.dir))
		began := monotonic()
		out, err := cmd.CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("sentryd status: %w: %.200s", err, out)
		}
		took = append(took, ms(monotonic()-began))
	}
	return map[string]float64{"median": quantile(took, 0.5), "worst": quantile(took, 1)}, nil
}
