package spawn

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOrphanEndsWhileLookedAt: the one orphan that was found ends before it is
// watched, and leaves another. The tree is not empty.
func TestOrphanEndsWhileLookedAt(t *testing.T) {
	fifo := t.TempDir() + "/fifo"
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	var orphan int // its pidfd
	var once sync.Once
	p := newTestPool(t, Options{Step: func(name string) {
		if name != "listed" {
			return
		}
		once.Do(func() {
			w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
			if err != nil {
				t.Error(err)
				return
			}
			fmt.Fprintln(w)
			w.Close()
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(orphan), Events: unix.POLLIN}}, int(time.Minute/time.Millisecond)); n != 1 {
				t.Errorf("the orphan does not end: %v", err)
			}
		})
	}}, nil)
	place := Place{Marks: []string{"TREE=" + t.TempDir()}}
	pidfile := fifo + ".pid"
	startIn(t, p, 1, place, fmt.Sprintf("sh -c 'read x <%s; sleep 1002 & exit' & echo $! >%s; echo; exec sleep 1000", fifo, pidfile))
	text, err := os.ReadFile(pidfile)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	if orphan, err = unix.PidfdOpen(pid, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(orphan)
	if err := signalOne(p, 1, int(unix.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	ev := p.take(t, 2)
	if exit := ev[1]; exit.Kind != Exited || exit.TreeEmpty || len(exit.Members) != 1 || exit.Members[0].PID == pid {
		t.Errorf("%+v", exit)
	}
	if err := p.SignalTree(1, int(unix.SIGKILL)); err != nil {
		t.Error(err)
	}
	p.until(t, func([]Event) bool { return len(p.Children()) == 0 })
}
