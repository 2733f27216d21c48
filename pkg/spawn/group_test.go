package spawn

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestGroup(t *testing.T) {
	bothProbes(t, func(t *testing.T, p *Pool) {
		if err := startShell(p, 1, t.TempDir(), "for i in 1 2 3 4 5 6; do sleep 1000 & done; echo; exit 5"); err != nil {
			t.Fatal(err)
		}
		ev := p.take(t, 2)
		exit := ev[1]
		if exit.Kind != Exited || exit.Status.Code != 5 || exit.GroupEmpty || len(exit.Members) != 6 || slices.Contains(exit.Members, exit.PID) {
			t.Fatalf("%+v", exit)
		}
		for _, pid := range exit.Members {
			if pgid, err := unix.Getpgid(pid); err != nil || pgid != exit.PID {
				t.Errorf("member %d: group %d, %v", pid, pgid, err)
			}
		}
		if c := p.Children(); len(c) != 1 || !c[0].Reaped || c[0].Token != 1 {
			t.Errorf("%+v", c)
		}
		if err := p.Signal(1, int(unix.SIGTERM)); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("signal to the dead leader: %v", err)
		}
		if err := p.SignalGroup(1, int(unix.SIGTERM)); err != nil {
			t.Error(err)
		}
		last := p.take(t, 1)[0]
		if last.Kind != GroupEmpty || last.Token != 1 || last.PID != exit.PID || !last.GroupEmpty || last.At < exit.At {
			t.Errorf("%+v", last)
		}
		if err := p.SignalGroup(1, int(unix.SIGTERM)); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("signal to nothing: %v", err)
		}
		if c := p.Children(); len(c) != 0 {
			t.Errorf("%+v", c)
		}
	})
}

// TestGroupOneByOne ends a group in such a way that the last watched member is
// not the last member.
func TestGroupOneByOne(t *testing.T) {
	bothProbes(t, func(t *testing.T, p *Pool) {
		dir := t.TempDir()
		// Each process is the child of the one before, and ends when it reads a line.
		script := `f() { if [ $1 -gt 0 ]; then f $(($1-1)) & fi; echo; read x <` + dir + `/gate; }; f 9 & read x <` + dir + "/gate"
		if err := unix.Mkfifo(dir+"/gate", 0o600); err != nil {
			t.Fatal(err)
		}
		gate, err := os.OpenFile(dir+"/gate", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { gate.Close() })
		if err := startShell(p, 1, dir, script); err != nil {
			t.Fatal(err)
		}
		if err := p.Signal(1, int(unix.SIGKILL)); err != nil {
			t.Fatal(err)
		}
		if exit := p.take(t, 2)[1]; exit.GroupEmpty {
			t.Fatalf("%+v", exit)
		}
		for range 10 {
			if _, err := gate.WriteString("\n"); err != nil {
				t.Fatal(err)
			}
		}
		if ev := p.take(t, 1)[0]; ev.Kind != GroupEmpty {
			t.Fatalf("%+v", ev)
		}
	})
}

// TestGroupLeft: a process with a session of its own is not in the group.
func TestGroupLeft(t *testing.T) {
	bothProbes(t, func(t *testing.T, p *Pool) {
		dir := t.TempDir()
		if err := startShell(p, 1, dir, "setsid sh -c 'echo $$ >"+dir+"/pid; echo; exec sleep 1000' & wait"); err != nil {
			t.Fatal(err)
		}
		var pid int
		b, err := os.ReadFile(dir + "/pid")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(string(b), &pid); err != nil {
			t.Fatal(err)
		}
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pidfd)
		if err := p.SignalGroup(1, int(unix.SIGKILL)); err != nil {
			t.Fatal(err)
		}
		if exit := p.take(t, 2)[1]; exit.Kind != Exited {
			t.Errorf("%+v", exit)
		}
		p.until(t, func([]Event) bool { return len(p.Children()) == 0 })
		if dead(pidfd) {
			t.Error("the process outside the group is dead")
		}
		if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil {
			t.Error(err)
		}
	})
}

func TestSignalGroupAlive(t *testing.T) {
	bothProbes(t, func(t *testing.T, p *Pool) {
		if err := startShell(p, 1, t.TempDir(), "sleep 1000 & sleep 1000 & echo; wait"); err != nil {
			t.Fatal(err)
		}
		if err := p.SignalGroup(1, int(unix.SIGTERM)); err != nil {
			t.Fatal(err)
		}
		ev := p.until(t, func([]Event) bool { return len(p.Children()) == 0 })
		if ev = p.Events(ev); ev[1].Kind != Exited || ev[1].Status.Signal != int(unix.SIGTERM) {
			t.Errorf("%+v", ev)
		}
	})
}

func TestRelease(t *testing.T) {
	bothProbes(t, func(t *testing.T, p *Pool) {
		if err := startShell(p, 1, t.TempDir(), "sleep 1000 & echo; exit 0"); err != nil {
			t.Fatal(err)
		}
		p.Release(2) // unknown
		exit := p.until(t, func(all []Event) bool { return len(all) == 2 })[1]
		if exit.GroupEmpty || len(exit.Members) != 1 {
			t.Fatalf("%+v", exit)
		}
		pidfd, err := unix.PidfdOpen(exit.Members[0], 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pidfd)
		p.Release(1)
		if c := p.Children(); len(c) != 0 {
			t.Errorf("%+v", c)
		}
		if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil {
			t.Error(err)
		}
	})
}

func TestAdopt(t *testing.T) {
	bothProbes(t, func(t *testing.T, p *Pool) {
		old := newTestPool(t, Options{}, nil)
		if err := startShell(old, 1, t.TempDir(), "echo; exec sleep 1000"); err != nil {
			t.Fatal(err)
		}
		if err := startShell(old, 2, t.TempDir(), "sleep 1000 & echo; exit 0"); err != nil {
			t.Fatal(err)
		}
		old.take(t, 3)
		if n := len(old.Pause()); n != 0 {
			t.Errorf("%d unstarted", n)
		}
		for _, c := range old.Children() {
			// As through execve: not close-on-exec, and the old pool gone.
			fd, err := unix.Dup(c.PidFD)
			if err != nil {
				t.Fatal(err)
			}
			if c.Reaped != (c.Token == 2) {
				t.Errorf("%+v", c)
			}
			if err := p.Adopt(c.Token, c.PID, fd); err != nil {
				t.Fatal(err)
			}
			if err := p.Adopt(c.Token, c.PID, fd); err == nil {
				t.Error("one token was adopted twice")
			}
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC {
				t.Errorf("descriptor flags %d, %v", flags, err)
			}
		}
		old.Close()
		if err := p.SignalGroup(1, int(unix.SIGTERM)); err != nil {
			t.Error(err)
		}
		if ev := p.take(t, 1)[0]; ev.Kind != Exited || ev.Token != 1 || ev.Status.Signal != int(unix.SIGTERM) {
			t.Errorf("%+v", ev)
		}
		if err := p.SignalGroup(2, int(unix.SIGTERM)); err != nil {
			t.Error(err)
		}
		if ev := p.take(t, 1)[0]; ev.Kind != GroupEmpty || ev.Token != 2 {
			t.Errorf("%+v", ev)
		}
	})
}

// TestReleaseRunning: a child that runs is not forgotten.
func TestReleaseRunning(t *testing.T) {
	p := newTestPool(t, Options{}, nil)
	p.Start(1, static(t, pause()))
	p.take(t, 1)
	p.Release(1)
	if c := p.Children(); len(c) != 1 {
		t.Errorf("%+v", c)
	}
}

func TestAdoptStranger(t *testing.T) {
	p := newTestPool(t, Options{}, nil)
	if err := p.Adopt(1, os.Getppid(), -1); !errors.Is(err, syscall.ECHILD) {
		t.Errorf("adopted the parent: %v", err)
	}
	if c := p.Children(); len(c) != 0 {
		t.Errorf("%+v", c)
	}
}
