package integration

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A cgroup of a test: the daemon is started in it, so that everything that comes
// of that is in it, whatever the daemon knows. It is emptied and removed when
// the test ends.
type cgroup string

// newCgroup makes one below the cgroup of the tests, or returns "" where that
// is not possible: for lack of a cgroup v2 tree or of the right to write to it.
func newCgroup(t *testing.T) cgroup {
	t.Helper()
	own := ownCgroup()
	if own == "" {
		return ""
	}
	dir, err := os.MkdirTemp(own, "sentryd-test.")
	if err != nil {
		return ""
	}
	c := cgroup(dir)
	t.Cleanup(c.remove)
	return c
}

// ownCgroup is the directory of the cgroup v2 that the tests run in, or "".
func ownCgroup() string {
	mounts, err1 := os.ReadFile("/proc/self/mounts")
	groups, err2 := os.ReadFile("/proc/self/cgroup")
	if err1 != nil || err2 != nil {
		return ""
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[2] != "cgroup2" {
			continue
		}
		for line := range strings.Lines(string(groups)) {
			if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
				return filepath.Join(f[1], path)
			}
		}
	}
	return ""
}

func (c cgroup) write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(string(c), file), []byte(text), 0); err != nil {
		t.Fatal(err)
	}
}

// pids lists what lives in it and below it.
func (c cgroup) pids() (pids []int) {
	// What cannot be read has gone meanwhile.
	_ = filepath.WalkDir(string(c), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.Name() != "cgroup.procs" {
			return nil
		}
		text, _ := os.ReadFile(path)
		for _, word := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// dirs lists the cgroups below it, by their paths in it.
func (c cgroup) dirs() (dirs []string) {
	_ = filepath.WalkDir(string(c), func(path string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() && path != string(c) {
			dirs = append(dirs, strings.TrimPrefix(path, string(c)+"/"))
		}
		return nil
	})
	return dirs
}

// remove kills what is left, waits for the end of it and removes everything.
func (c cgroup) remove() {
	for {
		_ = os.WriteFile(filepath.Join(string(c), "cgroup.kill"), []byte("1"), 0)
		pids := c.pids()
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			if fd, err := unix.PidfdOpen(pid, 0); err == nil {
				if slices.Contains(c.pids(), pid) {
					_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // before Linux 5.14
					_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
				}
				unix.Close(fd)
			}
		}
	}
	dirs := c.dirs()
	slices.Reverse(dirs) // those below before those above
	for _, dir := range append(dirs, "") {
		if err := unix.Rmdir(filepath.Join(string(c), dir)); errors.Is(err, unix.EBUSY) {
			return // the next tests' own list shows it
		}
	}
}
