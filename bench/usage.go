package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// usage is what the threads of a process have used so far.
type usage struct {
	cpu      time.Duration
	switches uint64 // context switches, voluntary and not: every wake-up ends in one
	threads  int
}

// readUsage sums over the threads that live; the contenders end none while they
// are measured. CPU is from schedstat, in nanoseconds: the ticks of stat are too
// coarse for an idle daemon.
func readUsage(pid int) (usage, error) {
	var u usage
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return u, err
	}
	for _, t := range tasks {
		status, err := fields(filepath.Join(t, "status"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the thread has ended
		}
		if err != nil {
			return u, err
		}
		u.threads++
		for _, key := range []string{"voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"} {
			n, err := strconv.ParseUint(status[key], 10, 64)
			if err != nil {
				return u, fmt.Errorf("%s/status: %s: %w", t, key, err)
			}
			u.switches += n
		}
		var cpu int64
		data, err := os.ReadFile(filepath.Join(t, "schedstat"))
		if err != nil {
			return u, err
		}
		if _, err := fmt.Sscan(string(data), &cpu); err != nil {
			return u, fmt.Errorf("%s/schedstat: %w", t, err)
		}
		u.cpu += time.Duration(cpu)
	}
	if u.threads == 0 {
		return u, fmt.Errorf("process %d has no threads", pid)
	}
	return u, nil
}

func openFiles(pid int) (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries), err
}

// readPSS is the proportional share of memory in MiB (Linux 4.14).
func readPSS(pid int) (float64, error) {
	rollup, err := fields(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	kib, err := strconv.ParseFloat(strings.TrimSuffix(rollup["Pss"], " kB"), 64)
	if err != nil {
		return 0, fmt.Errorf("read PSS of %d: %w", pid, err)
	}
	return kib / 1024, nil
}

// hostForks is the number of processes and threads the host has made so far.
func hostForks() (uint64, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if n, ok := strings.CutPrefix(line, "processes "); ok {
			return strconv.ParseUint(strings.TrimSpace(n), 10, 64)
		}
	}
	return 0, errors.New("/proc/stat has no line on processes")
}

// fields reads a file of lines `Key: value`.
func fields(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m := map[string]string{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok {
			m[k] = strings.TrimSpace(v)
		}
	}
	return m, s.Err()
}
