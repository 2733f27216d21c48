package spawn

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// earlier is a Pool as on a kernel before 6.15, where init is faster than we are.
func earlier(p *Pool) {
	p.ended = func(int) Status { return Status{} }
	p.exact = false
	p.keeps = func() bool { return false }
}

// TestKeepsStatus: what is tried says the same as what a reaped child shows.
func TestKeepsStatus(t *testing.T) {
	path, open := gate(t)
	n := newNest(t, "read go < "+path+"; exit 3")
	fd := n.open(0)
	defer unix.Close(fd)
	open()
	n.reap(0)
	if st, ok := keptStatus(fd); ok != keepsStatus() || ok && st.Code != 3 {
		t.Errorf("of a child that was reaped %+v, %t; keepsStatus %t", st, ok, keepsStatus())
	}
}

func TestUntold(t *testing.T) {
	testenvTool(t, "python3")
	path, open := gate(t)
	n := newNest(t, "exec sleep 1000", `exec python3 -c '
import threading
threading.Thread(target=threading.Event().wait).start()
open("`+path+`").read()
threading.Event().wait()
'`)
	open() // its thread is there
	p := newTestPool(t, Options{}, earlier)
	if l := p.Untold(); l != nil {
		t.Errorf("without any survivor: %v", l)
	}
	for i := range n.ids {
		if err := adoptSurvivor(p, Token(i), n.ids[i].PID, n.open(i)); err != nil {
			t.Fatal(err)
		}
	}
	if l := p.Untold(); len(l) != 2 {
		t.Errorf("untold: %v", l)
	}
	for i, want := range []int{1, 2} {
		before := monotonicNow(t)
		got, at, ok := p.Threads(Token(i))
		if got != want || !ok || at < before || at > monotonicNow(t) {
			t.Errorf("process %d has %d threads, want %d (%t); counted at %v", i, got, want, ok, at)
		}
	}
	if _, _, ok := p.Threads(7); ok {
		t.Error("a stranger's threads were counted")
	}
	p.keeps = func() bool { return true }
	if l := p.Untold(); l != nil {
		t.Errorf("where the kernel keeps it: %v", l)
	}
	p.keeps = func() bool { return false }
	if err := signalOne(p, 0, int(unix.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	if e := p.take(t, 1)[0]; e.Kind != Exited || e.Status.Known {
		t.Errorf("%+v", e)
	}
	if _, _, ok := p.Threads(0); ok {
		t.Error("the threads of a dead process were counted")
	}
	if l := p.Untold(); len(l) != 1 || l[0] != 1 {
		t.Errorf("untold: %v", l)
	}
}

// A process whose first thread has ended has that one still.
func TestThreadsWithoutTheFirst(t *testing.T) {
	testenvTool(t, "python3")
	path, open := gate(t)
	n := newNest(t, `exec python3 -c '
import ctypes, threading
def other():
    while open("/proc/self/stat").read().rpartition(")")[2].split()[0] != "Z":
        pass
    open("`+path+`").read()
    threading.Event().wait()
threading.Thread(target=other).start()
ctypes.CDLL(None).syscall(`+fmt.Sprint(unix.SYS_EXIT)+`, 0)
'`)
	open()
	p := newTestPool(t, Options{}, earlier)
	if err := adoptSurvivor(p, 1, n.ids[0].PID, n.open(0)); err != nil {
		t.Fatal(err)
	}
	if got, _, ok := p.Threads(1); got != 2 || !ok {
		t.Errorf("%d threads (%t), want 2", got, ok)
	}
}

func monotonicNow(t *testing.T) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}
