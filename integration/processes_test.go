package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A proc is a process that a test looked up, held by a pidfd so that it stays
// itself.
type proc struct {
	pid   int
	pidfd int
}

// gone waits for the end of a process, and reports whether it came.
func (p proc) gone(within time.Duration) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}, int(within.Milliseconds()))
	return err == nil && n > 0
}

// commandLine is the command of a process, for a message; empty if it is dead.
func commandLine(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // it may be gone
	return strings.TrimRight(strings.ReplaceAll(string(text), "\x00", " "), " ")
}

// marked returns the live processes that have the mark in their environment:
// what the daemon of that mark started, and it itself. Their pidfds are closed
// when the test ends.
func marked(t *testing.T, mark string) []proc {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []proc
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || !hasMark(pid, mark) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			t.Fatalf("pidfd_open %d: %v", pid, err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if hasMark(pid, mark) { // still the same one, now that we hold it
			found = append(found, proc{pid, fd})
		}
	}
	return found
}

// hasMark reads the environment that a process was started with. It is empty
// once the process is dead.
func hasMark(pid int, mark string) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool { return string(v) == mark })
}

// kill sends a signal to a process that this daemon started, and to no other
// that may have got its pid meanwhile. It reports whether it was there.
func (d *daemon) kill(pid int, s unix.Signal) bool {
	d.t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	// A process that is being executed has left sentryd's memory, and so counts as
	// started, a moment before its environment can be read.
	for p := (proc{pid, fd}); !hasMark(pid, d.mark); {
		if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err != nil || len(env) > 0 || p.gone(0) {
			return false
		}
	}
	return pid != d.pid && unix.PidfdSendSignal(fd, s, nil, 0) == nil
}

// open returns a pidfd of each of these processes, which have to be the
// daemon's own. They are closed when the test ends.
func (d *daemon) open(pids []int) []proc {
	d.t.Helper()
	var list []proc
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			d.t.Fatalf("pidfd_open %d: %v\n%s", pid, err, d)
		}
		d.t.Cleanup(func() { unix.Close(fd) })
		if pid == d.pid || !hasMark(pid, d.mark) {
			d.t.Fatalf("%d is no process of the daemon's", pid)
		}
		list = append(list, proc{pid, fd})
	}
	return list
}

// inode is the number of a process in pidfs (Linux 6.9), which no other
// process of this boot ever has. On older kernels it is the same for all.
func inode(t *testing.T, pid int) uint64 {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("pidfd_open %d: %v", pid, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// identities returns pid and pidfs inode of each slot of an entry that has a
// process.
func (d *daemon) identities(e *entryState) map[int]string {
	d.t.Helper()
	ids := map[int]string{}
	for _, p := range e.Processes {
		if p.PID != 0 {
			ids[p.Slot] = fmt.Sprintf("pid %d inode %d", p.PID, inode(d.t, p.PID))
		}
	}
	return ids
}

// numbers in the target of a descriptor's link that tell two of a kind apart.
var numbers = regexp.MustCompile(`\[\d+\]|\d+`)

// descriptors returns how many descriptors of each kind a process has open.
// Connections of the API come and go, and are left out.
func descriptors(t *testing.T, pid int) map[string]int {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	passing := connections(t)
	kinds := map[string]int{}
	for _, n := range names {
		target, err := os.Readlink(filepath.Join(dir, n.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was the descriptor of a moment
		}
		if err != nil {
			t.Fatal(err)
		}
		if keptCgroup.MatchString(target) || openedAhead(t, pid, n.Name(), target) {
			continue // as long as its slot's processes come and go
		}
		if passing[target] || target == "/proc" || strings.HasPrefix(target, "/proc/") {
			continue // of a moment too
		}
		kinds[numbers.ReplaceAllString(target, "N")]++
	}
	return kinds
}

// keptCgroup matches what sentryd keeps open of a slot's cgroup from one process to
// the next, and the directory that those are in, which each spawner opens for its
// first start.
var keptCgroup = regexp.MustCompile(`/sentryd\.[^/]+\.[0-9a-f]{8}(/[^/]+:\d+(~\d+)?(/cgroup\.events)?)?$`)

// openedAhead reports whether a descriptor is what the next process of a slot will write to: of the
// pipe that sentryd reads, but not as sentryd reads it, which never waits.
func openedAhead(t *testing.T, pid int, fd, target string) bool {
	t.Helper()
	if !strings.HasSuffix(target, ".output") {
		return false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, fd))
	if errors.Is(err, fs.ErrNotExist) {
		return true // it was one of a moment
	}
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "flags:")
	flags, err := strconv.ParseInt(strings.Fields(rest)[0], 8, 64)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return flags&unix.O_NONBLOCK == 0
}

// connections returns the sockets that are neither listening nor of netlink, as
// the links of their descriptors name them.
func connections(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, table := range []struct {
		path         string
		state, inode int    // columns
		connected    string // what state says
	}{
		{"/proc/net/unix", 5, 6, "03"},
		{"/proc/net/tcp", 3, 9, "01"},
	} {
		text, err := os.ReadFile(table.path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) > table.inode && f[table.state] == table.connected {
				found["socket:["+f[table.inode]+"]"] = true
			}
		}
	}
	return found
}

// threads returns the number of threads of a process.
func threads(t *testing.T, pid int) int {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

// procStatus returns a line of /proc/PID/status, e.g. SigIgn.
func procStatus(t *testing.T, pid int, key string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, ":"); ok && k == key {
			return strings.TrimSpace(v)
		}
	}
	t.Fatalf("no %s in the status of %d", key, pid)
	return ""
}

// script writes a shell script and returns its path, so that no $ in it has to
// be doubled for the configuration.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
