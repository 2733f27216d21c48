package lineage

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseStat(t *testing.T) {
	tail := strings.Repeat(" 0", 30)
	for text, want := range map[string]Proc{
		"7 (sh) S 1 7 6 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 4711 1 1" + tail: {PID: 7, PPID: 1, PGID: 7, SID: 6, State: 'S', Threads: 3, Ticks: 4711, Comm: "sh"},
		// A name may look like the rest of the line.
		"7 (a) R 2 (b) Z 1 7 6 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 9 1 1" + strings.Repeat(" 0", 27) + " 139": {PID: 7, PPID: 1, PGID: 7, SID: 6, State: 'Z', Threads: 1, Ticks: 9, Comm: "a) R 2 (b", Status: 139},
	} {
		got, err := parseStat([]byte(text))
		if err != nil || got != want {
			t.Errorf("%+v, %v, want %+v, of %q", got, err, want, text)
		}
	}
	for _, text := range []string{"", "7", "7 (sh", "x (sh) S 1", "7 (sh) S 1 7 6", "7 (sh) S 1 7 6 0 -1 0 0 0 0 0 0 0 0 0 20 0 x 0 4711 1 1" + tail} {
		if p, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q is taken for %+v", text, p)
		}
	}
}

// A thread's number is no process, though /proc/TID/stat can be read.
func TestReaderTakesNoThread(t *testing.T) {
	r, err := NewReader("/proc")
	if err != nil {
		t.Fatal(err)
	}
	tid, done := make(chan int32), make(chan struct{})
	defer close(done)
	for range 2 { // one of them is not the first thread
		go func() {
			runtime.LockOSThread()
			tid <- int32(unix.Gettid())
			<-done
		}()
	}
	n := <-tid
	if other := <-tid; n == int32(os.Getpid()) {
		n = other
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/stat", n)); err != nil {
		t.Fatal(err)
	}
	if p, found, err := r.Process(n); found || err != nil || p.Read == 0 {
		t.Errorf("thread %d: %+v, %v, %v", n, p, found, err)
	}
}

// A child of ours, alive and as a zombie.
func TestReader(t *testing.T) {
	before, err := clock(unix.CLOCK_MONOTONIC)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "read x; exit 3")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	pid := int32(cmd.Process.Pid)

	l, err := List("/proc", map[string]string{"none": t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var p *Proc
	for i := range l.Procs {
		if l.Procs[i].PID == pid {
			p = &l.Procs[i]
		}
	}
	if p == nil {
		t.Fatal("the child is not listed")
	}
	if p.PPID != int32(os.Getpid()) || p.Dead() || p.LeaderGone() || p.Threads != 1 {
		t.Errorf("%+v", p)
	}
	if p.Started < before-11*time.Millisecond || p.Started > l.Begin || p.Read < l.Begin {
		t.Errorf("started %v, between %v and %v", p.Started, before, l.Begin)
	}

	stdin.Close()
	var info unix.Siginfo
	for {
		// WNOWAIT: it stays a zombie.
		err := unix.Waitid(unix.P_PID, int(pid), &info, unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			t.Fatal(err)
		}
	}
	r, err := NewReader("/proc")
	if err != nil {
		t.Fatal(err)
	}
	got, found, err := r.Process(pid)
	if err != nil || !found || !got.Dead() || !got.StatusKnown || got.Status != syscall.WaitStatus(3<<8) {
		t.Errorf("%+v, %v, %v", got, found, err)
	}
	_ = cmd.Wait()
	if got, found, err := r.Process(pid); found || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}
