package main

import (
	"context"
	"fmt"
	"time"
)

// scenario is one thing that every contender is put through.
type scenario struct {
	name     string
	about    string
	rounds   int
	metrics  []*metric
	who      func(*contender) bool // nil = all
	run      func(context.Context, *rig, *contender) (map[string]float64, error)
	failures []string
	took     time.Duration
	others   float64 // CPUs that the rest of the host used meanwhile
}

// metric finds a metric by name; asking for one that is not declared is a
// mistake in this program.
func (s *scenario) metric(name string) *metric {
	for _, m := range s.metrics {
		if m.name == name {
			return m
		}
	}
	panic("scenario " + s.name + " has no metric " + name)
}

func scenarioNames() []string {
	var names []string
	for _, s := range scenarios(&options{huge: 1, rounds: 1}) {
		names = append(names, s.name)
	}
	return names
}

// The contenders of some scenarios. The listener matters where processes start
// in great number; sentryd alone has a status command and a re-exec.
func atRest(c *contender) bool          { return c.name != floorCListen && c.name != sentrydBare }
func onlySentryd(c *contender) bool     { return c.name == sentrydMain }
func floorAndSentryd(c *contender) bool { return c.name == floorC || c.name == sentrydMain }
func mainOnes(c *contender) bool        { return c.name != floorCListen && c.name != sentrydQuiet }

func scenarios(o *options) []*scenario {
	storm := stormScenario{slots: 100, warm: time.Second, window: 3 * time.Second}
	latency := latencyScenario{slots: 20, life: 150 * time.Millisecond, samples: max(700, (2000+o.rounds-1)/o.rounds)}
	settle, window, reexecs := 5*time.Second, 10*time.Second, 5
	if o.short {
		storm.warm, storm.window = 500*time.Millisecond, time.Second
		latency.samples = 250
		settle, window, reexecs = 2*time.Second, 3*time.Second, 3
	}
	everything := storm
	everything.attributes = true
	list := []*scenario{
		{
			name: "storm", rounds: o.rounds, run: storm.run,
			about: fmt.Sprintf("crash storm: %d slots, the child ends at once, no delay", storm.slots),
			metrics: []*metric{
				{name: "starts_per_second", title: "starts a second", unit: "/s", higher: true, target: atLeastRatio(0.65)},
				{name: "cpu_per_start", title: "supervisor's own CPU a start", unit: "us"},
			},
		},
		{
			name: "attributes", rounds: o.rounds, run: everything.run, who: floorAndSentryd,
			about: "crash storm, with user, groups, umask, nice, oom_score_adj, cpu_affinity, rlimits, capabilities and no_new_privileges for sentryd's",
			metrics: []*metric{
				{name: "starts_per_second", title: "starts a second", unit: "/s", higher: true},
				{name: "cpu_per_start", title: "supervisor's own CPU a start", unit: "us"},
			},
		},
		{
			name: "latency", rounds: o.rounds, run: latency.run, who: mainOnes,
			about: fmt.Sprintf("exit to restart: %d slots, lives of %v, %d samples a round", latency.slots, latency.life, latency.samples),
			metrics: []*metric{
				{name: "p50", title: "exit to restart, p50", unit: "us", target: atMostRatio(1.2)},
				{name: "p99", title: "exit to restart, p99", unit: "us", target: atMostRatio(2)},
			},
		},
		{
			name: "many", rounds: o.rounds, run: many, who: mainOnes,
			about: fmt.Sprintf("%d children: start them, kill them all at once, stop them", o.children),
			metrics: []*metric{
				{name: "start", title: "start, from the start of the daemon", unit: "ms", target: atMostRatio(1.4)},
				{name: "start_span", title: "start, from the first child to the last", unit: "ms"},
				{name: "mass_restart", title: "killed at once, until all are back", unit: "ms", target: atMostRatio(1.4)},
				{name: "stop", title: "stop, until all children are gone", unit: "ms", target: atMostRatio(1.2)},
			},
		},
		{
			name: "idle", rounds: 1, run: idleScenario{settle, window}.run, who: atRest,
			about: fmt.Sprintf("idle with %d children, over %v", o.children, window),
			metrics: []*metric{
				{name: "wakeups", title: "wake-ups of all threads (context switches)", unit: "/s", digits: 1, target: atMost(5), plain: true},
				{name: "cpu", title: "CPU", unit: "ms/s", digits: 3, plain: true},
				{name: "pss", title: "memory (PSS)", unit: "MiB", digits: 1, target: atMost(20), plain: true},
				{name: "threads", title: "threads", target: atMost(49), plain: true},
				{name: "fds", title: "open descriptors", plain: true},
				{name: "host_forks", title: "forks elsewhere on the host meanwhile", unit: "/s", digits: 1, plain: true},
			},
		},
		{
			name: "status", rounds: 1, run: statusScenario{times: 20}.run, who: onlySentryd,
			about: fmt.Sprintf("`sentryd status` with %d children, 20 times", o.children),
			metrics: []*metric{
				{name: "median", title: "median", unit: "ms", digits: 1, target: atMost(20), plain: true},
				{name: "worst", title: "worst", unit: "ms", digits: 1, plain: true},
			},
		},
		{
			name: "reexec", rounds: 1, run: reexecScenario{times: reexecs}.run, who: onlySentryd,
			about: fmt.Sprintf("SIGHUP with %d children, %d times: longest gap in the answers of GET /-/healthy", o.children, reexecs),
			metrics: []*metric{
				{name: "pause", title: "longest gap, median of the re-execs", unit: "ms", digits: 1, target: atMost(50), plain: true},
				{name: "worst", title: "longest gap, worst of the re-execs", unit: "ms", digits: 1, plain: true},
				{name: "without", title: "longest gap without a re-exec", unit: "ms", digits: 1, plain: true},
				{name: "took", title: "SIGHUP until the new image answers, median", unit: "ms", plain: true},
			},
		},
	}
	if o.huge > 0 {
		list = append(list, &scenario{
			name: "huge", rounds: 1, run: hugeScenario{o.huge}.run, who: floorAndSentryd,
			about: fmt.Sprintf("%d children in one daemon", o.huge),
			metrics: []*metric{
				{name: "start", title: "start, from the start of the daemon", unit: "ms"},
				{name: "threads", title: "threads", target: atMost(49), plain: true},
				{name: "fds_per_child", title: "open descriptors a child", digits: 2, target: atMost(4), plain: true},
				{name: "pss", title: "memory (PSS)", unit: "MiB", digits: 1, plain: true},
				{name: "mass_restart", title: "killed at once, until all are back", unit: "ms"},
				{name: "stop", title: "stop, until all children are gone", unit: "ms"},
			},
		})
	}
	return list
}
