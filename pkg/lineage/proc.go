package lineage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Proc is a process as /proc/PID/stat shows it; see proc_pid_stat(5).
type Proc struct {
	PID, PPID, PGID, SID int32
	State                byte // such as 'R', 'S', 'D', 'T' or 'Z'
	Threads              int  // tasks, a leader that ended included
	Ticks                uint64
	// Started is when it started, on CLOCK_MONOTONIC, cut to 10 ms. If the system was
	// suspended since then, it is too early by the length of that.
	Started time.Duration
	Comm    string
	// Read is a moment, on CLOCK_MONOTONIC, just before it was read.
	Read time.Duration
	// Status is the wait status of a zombie, if StatusKnown.
	Status      syscall.WaitStatus
	StatusKnown bool

	thread bool // it is no process: /proc has a directory for each thread's number too
}

// Dead says that all of the process's threads have ended, and that it waits to
// be reaped.
func (p *Proc) Dead() bool { return (p.State == 'Z' || p.State == 'X') && p.Threads <= 1 }

// LeaderGone says that the first thread has ended and others live. Such a
// process shows as a zombie.
func (p *Proc) LeaderGone() bool { return p.State == 'Z' && p.Threads > 1 }

// userHZ is the unit of times in /proc/PID/stat, a hundredth of a second on
// every architecture that Go runs Linux on (proc(5)).
const userHZ = 100

// Reader reads processes from /proc and cgroups. It is a value, and safe for
// concurrent use; make it with [NewReader].
type Reader struct {
	root    string
	offset  time.Duration // CLOCK_BOOTTIME less CLOCK_MONOTONIC
	allowed bool          // the status of zombies is told
}

// NewReader returns a Reader of a procfs of the initial PID namespace, mounted
// at root, as a rule "/proc". It is made anew for each listing: a suspend
// changes the relation of the clocks that it keeps.
func NewReader(root string) (Reader, error) {
	r := Reader{root: root, allowed: os.Geteuid() == 0}
	best := time.Duration(1<<63 - 1)
	for range 5 { // the two clocks are not read at once: take the closest
		before, err := clock(unix.CLOCK_MONOTONIC)
		if err != nil {
			return Reader{}, err
		}
		boot, err := clock(unix.CLOCK_BOOTTIME)
		if err != nil {
			return Reader{}, err
		}
		after, err := clock(unix.CLOCK_MONOTONIC)
		if err != nil {
			return Reader{}, err
		}
		if after-before < best {
			best = after - before
			r.offset = boot - before
		}
	}
	return r, nil
}

func clock(id int32) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0, fmt.Errorf("clock_gettime: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// List makes a listing of all processes of the host, and of those in the cgroups
// of roots, given by their directories.
func List[K comparable](procfs string, cgroups map[K]string) (Listing[K], error) {
	r, err := NewReader(procfs)
	if err != nil {
		return Listing[K]{}, err
	}
	l := Listing[K]{All: true, Members: make(map[K][]int32, len(cgroups))}
	if l.Begin, err = clock(unix.CLOCK_MONOTONIC); err != nil {
		return Listing[K]{}, err
	}
	for key, dir := range cgroups { // before /proc: see Listing.Members
		if l.Members[key], err = Cgroup(dir); err != nil {
			return Listing[K]{}, err
		}
	}
	l.Procs, err = r.All()
	return l, err
}

// All reads all processes of the host. Those that end meanwhile may be missing.
func (r Reader) All() (procs []Proc, err error) {
	dir, err := os.Open(r.root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", r.root, err)
	}
	for _, name := range names {
		pid, err := strconv.ParseInt(name, 10, 32)
		if err != nil {
			continue // not a process
		}
		switch p, found, err := r.Process(int32(pid)); {
		case err != nil:
			return nil, err
		case found:
			procs = append(procs, p)
		}
	}
	return procs, nil
}

// Process reads one process. found is false if there is none of that pid; p is
// good for [Tracker.Answer] all the same.
func (r Reader) Process(pid int32) (p Proc, found bool, err error) {
	name := filepath.Join(r.root, strconv.Itoa(int(pid)), "stat")
	before, err := clock(unix.CLOCK_MONOTONIC)
	if err != nil {
		return Proc{}, false, err
	}
	text, err := os.ReadFile(name)
	if err != nil {
		// ESRCH: it ended between open and read.
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			return Proc{Read: before}, false, nil
		}
		return Proc{}, false, err
	}
	if p, err = parseStat(text); err != nil {
		return Proc{}, false, fmt.Errorf("read %s: %w", name, err)
	}
	if p.thread { // which has the number of a process that has ended
		return Proc{Read: before}, false, nil
	}
	p.Read = before
	p.Started = time.Duration(p.Ticks)*(time.Second/userHZ) - r.offset
	// Those who may not know the status are shown a 0.
	p.StatusKnown = p.Dead() && (r.allowed || p.Status != 0)
	return p, true, nil
}

// Cgroup returns the pids in the cgroup at dir, a directory of a cgroup v2 tree, and in
// those below it. A zombie is in none. One that is removed meanwhile is empty.
func Cgroup(dir string) ([]int32, error) {
	var pids []int32
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		}
		text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
				return nil
			}
			return err
		}
		for line := range strings.Lines(string(text)) {
			pid, err := strconv.ParseInt(strings.TrimSpace(line), 10, 32)
			if err != nil {
				return fmt.Errorf("read %s/cgroup.procs: %w", path, err)
			}
			if pid != 0 { // a process of another PID namespace
				pids = append(pids, int32(pid))
			}
		}
		return nil
	})
	return pids, err
}

var errStat = errors.New("not in the format of proc_pid_stat(5)")

// parseStat reads the text of /proc/PID/stat, without Started and StatusKnown.
// The name may contain anything, so the fields are counted from its last ')'.
func parseStat(text []byte) (Proc, error) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 2 || end < open {
		return Proc{}, errStat
	}
	pid, err := strconv.ParseInt(string(text[:open-1]), 10, 32)
	if err != nil {
		return Proc{}, errStat
	}
	p := Proc{PID: int32(pid), Comm: string(text[open+1 : end])}
	fields := strings.Fields(string(text[end+1:]))
	const (
		state, ppid, pgrp, session = 0, 1, 2, 3 // fields 3 to 6 of the page
		threads, start             = 17, 19
		exitSignal, exitCode       = 35, 49
	)
	if len(fields) <= exitCode {
		return Proc{}, errStat
	}
	p.State = fields[state][0]
	number := func(i int) (n int32) {
		v, e := strconv.ParseInt(fields[i], 10, 32)
		if e != nil {
			err = errStat
		}
		return int32(v)
	}
	p.PPID, p.PGID, p.SID = number(ppid), number(pgrp), number(session)
	p.Threads = int(number(threads))
	p.Status = syscall.WaitStatus(number(exitCode))
	ticks, e := strconv.ParseUint(fields[start], 10, 64)
	if e != nil {
		err = errStat
	}
	p.Ticks = ticks
	p.thread = number(exitSignal) == -1
	return p, err
}
