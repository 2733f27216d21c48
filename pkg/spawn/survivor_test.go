package spawn

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nest is a process that adopts orphans and reaps them when it is told to. Below
// it a parent starts children, says who they are, and dies.
type nest struct {
	t     *testing.T
	in    io.Writer
	lines *bufio.Scanner
	ids   []Identity
}

// newNest returns one with children that run these scripts. They are killed at
// the end of the test.
func newNest(t *testing.T, scripts ...string) *nest {
	t.Helper()
	text, err := json.Marshal(scripts)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "SPAWN_TEST_HELPER=nest", "SPAWN_TEST_SCRIPTS="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := &nest{t: t, in: in, lines: bufio.NewScanner(out)}
	t.Cleanup(func() {
		for _, id := range n.ids {
			if fd, err := id.Open(nil); err == nil {
				_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
				unix.Close(fd)
			}
		}
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("nest: %v", err)
		}
	})
	if err := json.Unmarshal([]byte(n.line()), &n.ids); err != nil || len(n.ids) != len(scripts) {
		t.Fatalf("identities %v: %v", n.ids, err)
	}
	return n
}

func (n *nest) line() string {
	n.t.Helper()
	if !n.lines.Scan() {
		n.t.Fatalf("the nest is silent: %v", n.lines.Err())
	}
	return n.lines.Text()
}

// reap has the nest wait for the child, until that is dead.
func (n *nest) reap(i int) {
	n.t.Helper()
	fmt.Fprintln(n.in, n.ids[i].PID)
	if got, want := n.line(), fmt.Sprint("reaped ", n.ids[i].PID); got != want {
		n.t.Fatalf("got %q, want %q", got, want)
	}
}

// open returns a pidfd that is closed at the end of the test.
func (n *nest) open(i int) int {
	n.t.Helper()
	fd, err := n.ids[i].Open(func(int) bool { return true })
	if err != nil {
		n.t.Fatal(err)
	}
	return fd
}

func helpNest() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "SPAWN_TEST_HELPER=dies")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var killed *exec.ExitError
	if !errors.As(err, &killed) || len(out) == 0 {
		return fmt.Errorf("the parent said %q: %v", out, err)
	}
	if _, err := os.Stdout.Write(out); err != nil {
		return err
	}
	for {
		var pid int
		if _, err := fmt.Scanln(&pid); err != nil {
			return nil // end of the test
		}
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED, nil); err != nil {
			return fmt.Errorf("wait for %d: %w", pid, err)
		}
		fmt.Println("reaped", pid)
	}
}

// helpDies starts children and kills itself.
func helpDies() error {
	var scripts []string
	if err := json.Unmarshal([]byte(os.Getenv("SPAWN_TEST_SCRIPTS")), &scripts); err != nil {
		return err
	}
	p, err := New(Options{Identify: true})
	if err != nil {
		return err
	}
	for i, s := range scripts {
		spec := sh(s)
		spec.Env = append(spec.Env, nestMark)
		p.Start(Token(i), spec)
	}
	events, err := helpEvents(p, len(scripts))
	if err != nil {
		return err
	}
	ids := make([]*Identity, len(scripts))
	for _, e := range events {
		if e.Kind != Started || e.Identity == nil {
			return fmt.Errorf("%+v", e)
		}
		ids[e.Token] = e.Identity
	}
	if err := json.NewEncoder(os.Stdout).Encode(ids); err != nil {
		return err
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	return unix.PidfdSendSignal(self, unix.SIGKILL, nil, 0)
}

// gate is a FIFO that a script waits at: "read x < PATH".
func gate(t *testing.T) (path string, open func()) {
	path = filepath.Join(t.TempDir(), "gate")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, func() {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := fmt.Fprintln(f, "go"); err != nil {
			t.Fatal(err)
		}
	}
}

// afterReap is what a process may know that may not trace the orphan.
func afterReap(pidfd int) Status {
	st, _ := keptStatus(pidfd)
	return st
}

func needKept(t *testing.T) {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	release := unix.ByteSliceToString(u.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil || major < 6 || major == 6 && minor < 15 {
		t.Skipf("needs PIDFD_INFO_EXIT: Linux 6.15, this is %s", release)
	}
}

// nestMark is in the environment of what a nest starts.
const nestMark = "SPAWN_TEST_NEST=1"

func adoptSurvivor(p *Pool, token Token, pid, pidfd int) error {
	return p.Adopt([]Child{{
		Token: token, PID: pid, PidFD: pidfd, Survivor: true, Place: Place{Marks: []string{nestMark}},
	}})[0]
}

// bothProbes tests with what the kernel has, and as before Linux 6.9.
func bothProbes(t *testing.T, test func(t *testing.T, p *Pool)) {
	t.Run("exact", func(t *testing.T) { test(t, newTestPool(t, Options{}, nil)) })
	t.Run("before 6.9", func(t *testing.T) { test(t, newTestPool(t, Options{}, func(p *Pool) { p.exact = false })) })
}

func TestSurvivorExits(t *testing.T) {
	bothProbes(t, func(t *testing.T, p *Pool) {
		path, open := gate(t)
		n := newNest(t, "read x < "+path+"; exit 7", "exec sleep 1000")
		for i := range n.ids {
			if err := adoptSurvivor(p, Token(i), n.ids[i].PID, n.open(i)); err != nil {
				t.Fatal(err)
			}
		}
		if c := p.Children(); len(c) != 2 || !c[0].Survivor || !c[1].Survivor {
			t.Errorf("children %+v", c)
		}
		p.Look(0) // lives
		open()
		e := p.take(t, 1)[0] // nobody has reaped it
		if e.Kind != Exited || e.Token != 0 || e.PID != n.ids[0].PID || !e.TreeEmpty {
			t.Fatalf("%+v", e)
		}
		if st := e.Status; !st.Known || st.Code != 7 || st.Signal != 0 || st.NoUsage || st.UserTime+st.SystemTime > time.Minute {
			t.Errorf("status %+v", st)
		}
		if err := signalOne(p, 1, int(unix.SIGKILL)); err != nil {
			t.Fatal(err)
		}
		if e := p.take(t, 1)[0]; e.Kind != Exited || e.Token != 1 || e.Status.Signal != int(unix.SIGKILL) || !e.Status.Known {
			t.Errorf("%+v", e)
		}
		n.reap(0)
		n.reap(1)
		if _, err := n.ids[0].Open(nil); !errors.Is(err, ErrGone) {
			t.Errorf("open after the reap: %v", err)
		}
	})
}

// TestSurvivorStatusComesWithTheReap is what an unprivileged process sees.
func TestSurvivorStatusComesWithTheReap(t *testing.T) {
	needKept(t)
	p := newTestPool(t, Options{}, func(p *Pool) { p.ended = afterReap })
	path, open := gate(t)
	n := newNest(t, "read x < "+path+"; exit 3")
	fd := n.open(0)
	watch, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if err := adoptSurvivor(p, 1, n.ids[0].PID, fd); err != nil {
		t.Fatal(err)
	}
	open()
	fds := []unix.PollFd{{Fd: int32(watch), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, 60_000); err != nil || fds[0].Revents == 0 {
		t.Fatalf("it does not end: %v", err)
	}
	p.Look(1)
	if e := p.Events(nil); len(e) != 0 {
		t.Fatalf("told before anybody could know: %+v", e)
	}
	n.reap(0)
	e := p.take(t, 1)[0]
	if e.Kind != Exited || !e.TreeEmpty || e.Status != (Status{Known: true, Code: 3, NoUsage: true}) {
		t.Errorf("%+v", e)
	}
}

// TestSurvivorThatNobodyReaps is given up after a while, which the test does not wait for.
func TestSurvivorThatNobodyReaps(t *testing.T) {
	p := newTestPool(t, Options{}, func(p *Pool) { p.ended = func(int) Status { return Status{} } })
	if !p.exact {
		t.Skip("needs the pidfd to tell of the reap: Linux 6.9")
	}
	n := newNest(t, "exec sleep 1000")
	if err := adoptSurvivor(p, 1, n.ids[0].PID, n.open(0)); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	c := p.children[1]
	p.mu.Unlock()
	if err := signalOne(p, 1, int(unix.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	p.giveUp(c) // dead or not: it is told of once it is dead
	if e := p.take(t, 1)[0]; e.Kind != Exited || e.Status.Known || !e.TreeEmpty {
		t.Errorf("%+v", e)
	}
	n.reap(0)
}

// TestSurvivorReapedBefore adopts what ended before, but after its pidfd was opened.
func TestSurvivorReapedBefore(t *testing.T) {
	needKept(t)
	p := newTestPool(t, Options{}, nil)
	n := newNest(t, "exec sleep 1000")
	fd := n.open(0)
	if st, ended := ExitStatus(fd); ended {
		t.Errorf("ended although it lives: %+v", st)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		t.Fatal(err)
	}
	n.reap(0)
	if st, ended := ExitStatus(fd); !ended || st != (Status{Known: true, Signal: int(unix.SIGTERM), NoUsage: true}) {
		t.Errorf("%+v, %v", st, ended)
	}
	if err := adoptSurvivor(p, 1, n.ids[0].PID, fd); err != nil {
		t.Fatal(err)
	}
	if e := p.take(t, 1)[0]; e.Kind != Exited || e.Status.Signal != int(unix.SIGTERM) || !e.TreeEmpty {
		t.Errorf("%+v", e)
	}
}

// TestSurvivorTree has something left of the survivor's tree, while the survivor
// itself is a zombie and after it was reaped.
func TestSurvivorTree(t *testing.T) {
	for _, reapFirst := range []bool{false, true} {
		t.Run(fmt.Sprintf("reap first=%t", reapFirst), func(t *testing.T) { checkSurvivorTree(t, reapFirst) })
	}
}

func checkSurvivorTree(t *testing.T, reapFirst bool) {
	p := newTestPool(t, Options{}, nil)
	if !p.exact {
		t.Skip("needs PIDFD_SIGNAL_PROCESS_GROUP: Linux 6.9")
	}
	path, open := gate(t)
	n := newNest(t, "sleep 1000 & read x < "+path+"; exit 7")
	if err := adoptSurvivor(p, 1, n.ids[0].PID, n.open(0)); err != nil {
		t.Fatal(err)
	}
	open()
	e := p.take(t, 1)[0]
	if e.Kind != Exited || e.Status.Code != 7 || e.TreeEmpty || len(e.Members) != 1 {
		t.Fatalf("%+v", e)
	}
	if reapFirst {
		n.reap(0)
	}
	if err := p.SignalTree(1, int(unix.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	p.until(t, func(all []Event) bool { return len(all) > 0 && all[len(all)-1].Kind == TreeEmpty })
	if !reapFirst {
		n.reap(0)
	}
}

// TestSurvivorStatusWhenTheFirstThreadEndedBefore: the process's status is that of
// the call that ended it, not that of its first thread.
func TestSurvivorStatusWhenTheFirstThreadEndedBefore(t *testing.T) {
	testenvTool(t, "python3")
	n := newNest(t, `exec python3 -c '
import ctypes, os, threading, time
def end():
    while open("/proc/self/stat").read().rpartition(")")[2].split()[0] != "Z":
        os.sched_yield()
    os._exit(7)
threading.Thread(target=end).start()
ctypes.CDLL(None).syscall(`+fmt.Sprint(unix.SYS_EXIT)+`, 0)
'`)
	fd := n.open(0)
	defer unix.Close(fd)
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, 60_000); err != nil || fds[0].Revents == 0 {
		t.Fatalf("it does not end: %v", err)
	}
	if st, ended := ExitStatus(fd); !ended || !st.Known || st.Code != 7 {
		t.Errorf("of the zombie: %+v, %v", st, ended)
	}
	n.reap(0)
	if st, ok := keptStatus(fd); ok && st.Code != 7 {
		t.Errorf("after the reap: %+v", st)
	}
}

func testenvTool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("needs %s: %v", name, err)
	}
}

func TestAdoptSurvivorOfOurOwn(t *testing.T) {
	if !haveClone3() {
		t.Skip("needs clone3")
	}
	bothProbes(t, func(t *testing.T, p *Pool) {
		pid, fd := startAs(t, 0)
		if err := adoptSurvivor(p, 1, pid, fd); err != nil {
			t.Fatal(err)
		}
		if err := adoptSurvivor(p, 1, pid, fd); err == nil {
			t.Error("a token was used twice")
		}
		if p.Children()[0].Survivor {
			t.Error("our own child is a survivor")
		}
		if err := signalOne(p, 1, int(unix.SIGTERM)); err != nil {
			t.Fatal(err)
		}
		e := p.take(t, 1)[0]
		if st := e.Status; !st.Known || st.Signal != int(unix.SIGTERM) || st.NoUsage || !e.TreeEmpty {
			t.Errorf("%+v", e)
		}
	})
}

func TestParseStat(t *testing.T) {
	var fields []string
	for i := 3; i <= 52; i++ {
		fields = append(fields, fmt.Sprint(i))
	}
	fields[0] = "Z"
	st, err := parseStat([]byte("42 (a) b (c) Z) " + strings.Join(fields, " ") + "\n"))
	want := procStat{state: 'Z', parent: 4, session: 6, threads: 20, user: (14 + 16) * 1e7, system: (15 + 17) * 1e7, start: 22, endCode: 27, envStart: 50, envEnd: 51, exit: 52}
	if err != nil || st != want {
		t.Errorf("got %+v (%v), want %+v", st, err, want)
	}
	for _, text := range []string{"", "42 (a", "42 (a) Z 1 2", "42 (a) Z " + strings.Repeat("x ", 60)} {
		if st, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q: %+v", text, st)
		}
	}
	for status, want := range map[int]Status{
		0: {Known: true}, 7 << 8: {Known: true, Code: 7}, 9: {Known: true, Signal: 9}, 11 | 0x80: {Known: true, Signal: 11, Core: true},
	} {
		if got := waitStatus(status); got != want {
			t.Errorf("%#x: %+v, want %+v", status, got, want)
		}
	}
	if !slices.Equal(values([]byte("A=1\x00B=x=y\x00C=\x00"), []string{"C", "B"}), []string{"", "x=y"}) {
		t.Error("values")
	}
}
