package metrics

import (
	"runtime"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sentryd/sentryd/pkg/view"
)

// Collector is a prometheus.Collector of a published state. Make it with
// [NewCollector]. It keeps nothing but what makes processor time a counter.
type Collector struct {
	load      func() *view.State
	processes Processes
	metrics   metrics
	all       []*prometheus.Desc

	// mu makes scrapes take turns, so that they see states in the order in
	// which they were loaded. Nothing but a scrape waits for it.
	mu  sync.Mutex
	cpu cpuBook
}

// NewCollector returns a collector of what load returns; see [New].
func NewCollector(load func() *view.State, processes Processes) *Collector {
	c := &Collector{load: load, processes: processes, cpu: cpuBook{}}
	c.metrics, c.all = newMetrics()
	return c
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.all {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	s, used := c.read()
	out := sink{ch}
	c.daemon(out, &s.Daemon)
	for i, e := range s.Entries {
		c.entry(out, e, &used[i])
	}
}

// read loads a state and what the processes in it use, entry by entry.
func (c *Collector) read() (*view.State, []entryUsage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.load()
	var pids []int
	for _, e := range s.Entries {
		for _, p := range e.Processes {
			if p.PID != 0 {
				pids = append(pids, p.PID)
			}
		}
	}
	now := make(map[int]usage, len(pids))
	c.processes.Each(pids, func(pid int, start uint64, user, system float64, rss int64, fds int) {
		now[pid] = usage{start: start, cpu: view.CPU{User: user, System: system}, rss: rss, fds: fds}
	})
	return s, c.cpu.take(s.Entries, now)
}

func (c *Collector) daemon(out sink, d *view.Daemon) {
	m := &c.metrics
	out.value(m.buildInfo, 1, d.Version, runtime.Version())
	out.value(m.reloadOK, truth(d.LastReload.OK))
	if at := d.LastReload.SuccessAt; at != nil {
		out.value(m.reloadTime, seconds(*at))
	}
	out.counts(m.reexecs, d.ReexecResults)
	for _, l := range d.Listeners {
		out.value(m.listenerUp, truth(l.Up), l.Address)
	}
	out.value(m.adopted, float64(d.AdoptedProcesses))
	out.value(m.ignored, float64(d.IgnoredEvents))
	out.value(m.outputDropped, float64(d.OutputDropped))
	out.counts(m.failures, d.UnhandledFailures)
	out.value(m.queueLength, float64(d.EventQueueLength))
	out.value(m.connectorUp, truth(d.ProcConnector.Up))
	out.counts(m.procEvents, d.ProcEvents)
	out.value(m.procEventsLost, float64(d.ProcEventsLost))
	out.value(m.procResyncs, float64(d.ProcResyncs))
	out.histogram(m.exitDetection, d.ExitDetection)
}

func (c *Collector) entry(out sink, e *view.Entry, used *entryUsage) {
	m := &c.metrics
	out.value(m.desired, float64(e.Desired), e.Name)
	out.counts(m.processes, e.States, e.Name)
	out.value(m.ready, float64(e.Ready), e.Name)
	for _, p := range e.Processes {
		slot := strconv.Itoa(p.Slot)
		out.value(m.up, truth(p.PID != 0), e.Name, slot)
		if p.StartedAt != nil {
			out.value(m.startTime, seconds(*p.StartedAt), e.Name, slot)
		}
	}
	out.value(m.starts, float64(e.Starts), e.Name)
	for _, x := range e.ExitCounts {
		out.value(m.exits, float64(x.N), e.Name, x.Reason, x.Code)
	}
	out.counts(m.startFailures, e.StartFailures, e.Name)
	out.value(m.oomKills, float64(e.OOMKills), e.Name)
	out.histogram(m.uptime, e.Uptime, e.Name)
	out.histogram(m.restartLatency, e.RestartLatency, e.Name)
	out.value(m.cpu, used.cpu.User, e.Name, "user")
	out.value(m.cpu, used.cpu.System, e.Name, "system")
	out.value(m.resident, float64(used.rss), e.Name)
	out.value(m.openFDs, float64(used.fds), e.Name)
	out.value(m.descendants, float64(e.Descendants), e.Name)
	out.value(m.forks, float64(e.Forks), e.Name)
	out.value(m.execs, float64(e.Execs), e.Name)
	out.counts(m.descendantExits, e.DescendantExits, e.Name)
	out.value(m.coredumps, float64(e.Coredumps), e.Name)
	out.value(m.logBytes, float64(e.LogBytes), e.Name)
	out.value(m.logLines, float64(e.LogLines), e.Name)
}
