package spawn

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestPauseLeavesExits: from Pause to Resume, in which an execve(2) may come,
// no end is taken from the kernel and no pidfd is closed. What is reaped there
// is lost: the state that is handed over says that the process lives.
func TestPauseLeavesExits(t *testing.T) {
	p := newTestPool(t, Options{}, nil)
	p.Start(1, &Spec{Path: "sleep", Args: []string{"sleep", "1000"}})
	p.take(t, 1)
	p.Pause()
	listed := p.Children()
	if len(listed) != 1 {
		t.Fatalf("%+v", listed)
	}
	if err := signalOne(p, 1, int(unix.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	dup, err := unix.FcntlInt(uintptr(listed[0].PidFD), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dup)
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(dup), Events: unix.POLLIN}}, -1); err != nil {
		t.Fatal(err)
	}
	p.Look(1)
	if ev := p.Events(nil); len(ev) != 0 {
		t.Errorf("while paused: %+v", ev)
	}
	if _, ended, errno := waitNow(dup, unix.WNOWAIT); !ended || errno != 0 {
		t.Errorf("the next image cannot reap it: %v", errno)
	}
	if _, err := unix.FcntlInt(uintptr(listed[0].PidFD), unix.F_GETFD, 0); err != nil {
		t.Errorf("what Children listed: %v", err)
	}
	p.Resume()
	if ev := p.take(t, 1); ev[0].Kind != Exited || ev[0].Status.Signal != int(unix.SIGTERM) {
		t.Errorf("%+v", ev)
	}
}
