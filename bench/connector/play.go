package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// play has a contender listen to one storm.
func (b *bench) play(c contender, n int) (f figures, err error) {
	if c.launch == nil {
		f.storm, err = b.storm(n)
		return f, err
	}
	l, err := c.launch()
	if err != nil {
		return f, err
	}
	before, err := cpu(l.pid())
	if err == nil {
		if f.storm, err = b.storm(n); err == nil {
			var after time.Duration
			after, err = settle(l.pid())
			f.cpu = (after - before).Seconds()
		}
	}
	events, endErr := l.end()
	if err == nil {
		err = endErr
	}
	f.events = events
	if made := uint64(n * c.kinds); made > events {
		f.lost = made - events
	}
	return f, err
}

// storm returns how many seconds one took.
func (b *bench) storm(n int) (float64, error) {
	text, err := output(b.program("storm"), strconv.Itoa(n))
	if err != nil {
		return 0, err
	}
	ns, err := strconv.ParseInt(text, 10, 64)
	return float64(ns) / 1e9, err
}

// settle waits until a process has nothing left to do, and returns the CPU time
// that it has used by then.
func settle(pid int) (time.Duration, error) {
	const window, idle = 200 * time.Millisecond, 2 * time.Millisecond
	ticks := time.NewTicker(window)
	defer ticks.Stop()
	last, err := cpu(pid)
	for err == nil {
		<-ticks.C
		var used time.Duration
		if used, err = cpu(pid); err == nil && used-last < idle {
			return used, nil
		}
		last = used
	}
	return 0, err
}

// cpu returns what the threads of a process have used, to the nanosecond.
func cpu(pid int) (sum time.Duration, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	if len(tasks) == 0 {
		return 0, fmt.Errorf("process %d has ended", pid)
	}
	for _, t := range tasks {
		data, err := os.ReadFile(t)
		if os.IsNotExist(err) {
			continue // the thread has ended
		}
		if err != nil {
			return 0, err
		}
		var ns int64
		if _, err := fmt.Sscan(string(data), &ns); err != nil {
			return 0, fmt.Errorf("%s: %w", t, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}
