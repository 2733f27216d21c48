package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/sys/unix"
)

// reexecScenario asks GET /-/healthy a thousand times a second and looks for
// the longest time without an answer around a SIGHUP.
type reexecScenario struct{ times int }

func (s reexecScenario) run(ctx context.Context, r *rig, c *contender) (_ map[string]float64, err error) {
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
	client := unixClient(sentrydSocket(in.dir))
	before, err := reexecs(ctx, client)
	if err != nil {
		return nil, err
	}

	quiet, err := watch(ctx, client, time.Second, nil)
	if err != nil {
		return nil, err
	}
	var gaps, took []float64
	for i := range s.times {
		gap, err := watch(ctx, client, 2*time.Second, func() error { return in.signal(unix.SIGHUP) })
		if err != nil {
			return nil, err
		}
		err = await(ctx, 30*time.Second, "the re-exec", func() (bool, error) {
			n, err := reexecs(ctx, client)
			return n >= before+i+1, err
		})
		if err != nil {
			return nil, err
		}
		gaps = append(gaps, ms(gap.longest))
		took = append(took, ms(gap.end))
	}
	if n := in.starts(); n != uint64(in.slots) {
		return nil, fmt.Errorf("%d children were started again by the re-execs", n-uint64(in.slots))
	}
	return map[string]float64{
		"pause": quantile(gaps, 0.5), "worst": quantile(gaps, 1), "without": ms(quiet.longest), "took": quantile(took, 0.5),
	}, nil
}

// gap is the longest time between two answers, and when it ended, counted from
// the disturbance.
type gap struct{ longest, end time.Duration }

// watch asks for d after disturb was called (nil: nothing disturbs).
func watch(ctx context.Context, client *http.Client, d time.Duration, disturb func() error) (gap, error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	if err := healthy(ctx, client); err != nil {
		return gap{}, err
	}
	last := monotonic()
	began := last
	if disturb != nil {
		if err := disturb(); err != nil {
			return gap{}, err
		}
	}
	var g gap
	var failure error
	for monotonic() < began+d {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return gap{}, context.Cause(ctx)
		}
		// A request may be cut by the re-exec: that is a part of the gap.
		if failure = healthy(ctx, client); failure != nil {
			continue
		}
		now := monotonic()
		if now-last > g.longest {
			g = gap{longest: now - last, end: now - began}
		}
		last = now
	}
	if failure != nil {
		return gap{}, fmt.Errorf("no answer at the end of the watch: %w", failure)
	}
	return g, nil
}

func unixClient(socket string) *http.Client {
	var d net.Dialer
	return &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", socket)
		}},
	}
}

func healthy(ctx context.Context, client *http.Client) error {
	_, err := get(ctx, client, "/-/healthy")
	return err
}

// reexecs asks how often the daemon has replaced itself.
func reexecs(ctx context.Context, client *http.Client) (int, error) {
	body, err := get(ctx, client, "/v1/state")
	if err != nil {
		return 0, err
	}
	var state struct {
		Daemon struct{ Reexecs int }
	}
	if err := json.Unmarshal(body, &state); err != nil {
		return 0, fmt.Errorf("state: %w", err)
	}
	return state.Daemon.Reexecs, nil
}

func get(ctx context.Context, client *http.Client, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s: %.200s", path, resp.Status, body)
	}
	return body, nil
}
