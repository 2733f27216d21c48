package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWhatChildrenInherit starts the daemon from a shell that left it ignored
// signals and an open descriptor, and looks
// at what its processes get: none of that, before a re-exec and after.
func TestWhatChildrenInherit(t *testing.T) {
	const limit = 700 // the daemon raises its own
	dir := t.TempDir()
	start := script(t, fmt.Sprintf("ulimit -Sn %d\ntrap '' HUP INT USR1 PIPE QUIT\nexec 7</dev/null\nexec %s \"$@\"\n", limit, docsBinary(t)))
	// Of a program with libraries the loader may still have one open.
	d := startDaemon(t, fmt.Sprintf(`
entries:
  first: {command: %[1]s}
  second: {command: %[1]s, autostart: false}
  third: {command: %[1]s, autostart: false}
`, waiter(t)), options{dir: dir, bin: start})
	check := func(name string) {
		t.Helper()
		p := d.running(name, 1).process(name, 0)
		for _, key := range []string{"SigBlk", "SigIgn", "SigCgt"} {
			if got := strings.Trim(procStatus(t, p.PID, key), "0"); got != "" {
				t.Errorf("%s: %s is %s", name, key, procStatus(t, p.PID, key))
			}
		}
		for key, want := range map[string]string{"PPid": strconv.Itoa(d.pid), "NSsid": strconv.Itoa(p.PID), "NSpgid": strconv.Itoa(p.PID)} {
			if got := procStatus(t, p.PID, key); got != want {
				t.Errorf("%s: %s is %s, want %s", name, key, got, want)
			}
		}
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID))
		if err != nil {
			t.Fatal(err)
		}
		fifo := d.runtimeFile(filepath.Join("log", name+":0.output"))
		want := map[string]string{"0": "/dev/null", "1": fifo, "2": fifo}
		for _, fd := range fds {
			target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", p.PID, fd.Name()))
			if err != nil || want[fd.Name()] != target {
				t.Errorf("%s: descriptor %s is %s (%v)", name, fd.Name(), target, err)
			}
			delete(want, fd.Name())
		}
		if len(want) > 0 {
			t.Errorf("%s: no descriptors %v", name, want)
		}
		var nofile unix.Rlimit
		if err := unix.Prlimit(p.PID, unix.RLIMIT_NOFILE, nil, &nofile); err != nil {
			t.Fatal(err)
		}
		if nofile.Cur != limit {
			t.Errorf("%s: RLIMIT_NOFILE is %d, want %d", name, nofile.Cur, limit)
		}
		if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.PID)); err != nil || dir != d.dir {
			t.Errorf("%s: working directory %s (%v)", name, dir, err)
		}
		for _, variable := range []string{"SENTRYD_NAME=test", "SENTRYD_ENTRY=" + name, "SENTRYD_SLOT=0", "SENTRYD_INCARNATION=1"} {
			if !hasMark(p.PID, variable) {
				t.Errorf("%s: no %s in the environment", name, variable)
			}
		}
		if hasMark(p.PID, "SENTRYD_STATE_FD=3") || strings.Contains(environ(p.PID), "SENTRYD_STATE") {
			t.Errorf("%s: what a re-exec hands over is in the environment", name)
		}
	}
	check("first")
	d.reexec()
	d.must("start", "second")
	check("second")
	// A re-exec that fails must leave as little.
	d.configure("entries: {}\nentreis: {}\n")
	if code, _, _ := d.ctl("reload"); code != 2 {
		t.Errorf("a broken configuration: exit code %d", code)
	}
	d.must("start", "third")
	check("third")
	d.stop()
}

// environ is the environment of a process, one variable a line.
func environ(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)) // it may be gone
	return strings.ReplaceAll(string(text), "\x00", "\n")
}

// TestThreadsAreFew counts the daemon's threads at many processes, in a storm
// and with many clients.
func TestThreadsAreFew(t *testing.T) {
	many := often(100, 300, 300)
	d := startDaemon(t, fmt.Sprintf(`
entries:
  many: {command: sleep 100000, count: %d}
  storm: {command: "true", count: 8, delay: 0}
`, many), options{})
	d.running("many", many)
	polls := make(chan error)
	version := strconv.FormatUint(d.state().Version+1_000_000, 10)
	const clients = 100
	for range clients {
		go func() {
			_, _, err := d.client.do("GET", "/v1/state?timeout=1s&after="+version, "", "")
			polls <- err
		}()
	}
	most := 0
	for range clients {
		if err := <-polls; err != nil {
			t.Errorf("a long poll: %v", err)
		}
		most = max(most, threads(t, d.pid))
	}
	if most >= 50 {
		t.Errorf("%d threads", most)
	}
	d.stop()
}
