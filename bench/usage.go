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

	"golang.org/x/sys/unix"
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
	v, err := hostStat("processes")
	if err != nil {
		return 0, err
	}
	return v[0], nil
}

// hostCPU is the CPU time that everything on the host has used so far, and what
// a hypervisor took away. Counted in ticks of 10 ms.
func hostCPU() (time.Duration, error) {
	v, err := hostStat("cpu")
	if err != nil {
		return 0, err
	}
	if len(v) < 8 {
		return 0, fmt.Errorf("/proc/stat: %d fields for cpu", len(v))
	}
	// user nice system idle iowait irq softirq steal, see proc(5).
	return time.Duration(v[0]+v[1]+v[2]+v[5]+v[6]+v[7]) * 10 * time.Millisecond, nil
}

// ownCPU is what this process, the contenders that have ended and the children
// that those reaped have used.
func ownCPU() (time.Duration, error) {
	var sum int64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			return 0, fmt.Errorf("getrusage: %w", err)
		}
		sum += u.Utime.Nano() + u.Stime.Nano()
	}
	return time.Duration(sum), nil
}

// others is what the rest of the host has used.
func others() (time.Duration, error) {
	host, err := hostCPU()
	if err != nil {
		return 0, err
	}
	own, err := ownCPU()
	return host - own, err
}

// hostStat reads the numbers of one line of /proc/stat.
func hostStat(key string) ([]uint64, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != key {
			continue
		}
		var v []uint64
		for _, s := range f[1:] {
			n, err := strconv.ParseUint(s, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("/proc/stat: %s: %w", key, err)
			}
			v = append(v, n)
		}
		return v, nil
	}
	return nil, fmt.Errorf("/proc/stat has no line %q", key)
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
