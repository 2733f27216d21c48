package procevents

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dial subscribes, or skips where that cannot be.
func dial(t testing.TB, cfg Config) *Listener {
	t.Helper()
	l, err := Dial(cfg)
	if err != nil {
		for _, why := range []error{ErrPIDNamespace, ErrUserNamespace, ErrNetNamespace, ErrPermission, ErrNoKernelSupport, ErrSilent} {
			if errors.Is(err, why) {
				t.Skipf("needs the proc connector: %v", err)
			}
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := l.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return l
}

// until receives events up to the first that last accepts, and returns those
// that keep accepts. An overrun fails the test.
func until(t testing.TB, l *Listener, last, keep func(*Event) bool) []Event {
	t.Helper()
	var kept []Event
	buf := make([]Event, 64)
	for {
		n, err := l.Receive(buf)
		if err != nil {
			t.Fatalf("Receive: %v; so far %v", err, kept)
		}
		for i := range buf[:n] {
			if keep(&buf[i]) {
				kept = append(kept, buf[i])
			}
			if last(&buf[i]) {
				return kept
			}
		}
	}
}

func monotonic(t testing.TB) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// The life of a child, from the real kernel.
func TestChild(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		exited       int
		signal       unix.Signal
	}{
		{"code 0", "exit 0", 0, 0},
		{"code 255", "exit 255", 255, 0},
		{"code 42", "exit 42", 42, 0},
		{"TERM", "kill -TERM $$", -1, unix.SIGTERM},
		{"KILL", "kill -KILL $$", -1, unix.SIGKILL},
		{"USR1", "kill -USR1 $$", -1, unix.SIGUSR1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := dial(t, Config{})
			before := monotonic(t)
			cmd := exec.Command("/bin/sh", "-c", tc.script)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			after := monotonic(t)
			pid := int32(cmd.Process.Pid)
			events := until(t, l,
				func(e *Event) bool { return e.Kind == Exit && e.PID == pid },
				func(e *Event) bool { return e.TGID == pid })
			var kinds []Kind
			for _, e := range events {
				if e.Timestamp < before || e.Timestamp > after {
					t.Errorf("%v is not between %v and %v", e, before, after)
				}
				kinds = append(kinds, e.Kind)
				switch e.Kind {
				case Fork:
					if int(e.ParentTGID) != os.Getpid() || e.IsThread() {
						t.Errorf("%v: parent is not %d", e, os.Getpid())
					}
				case Exit:
					ws := e.ExitStatus()
					if ws.ExitStatus() != tc.exited || ws.Signaled() && ws.Signal() != tc.signal || ws.Signaled() != (tc.signal != 0) {
						t.Errorf("%v: status %#x", e, ws)
					}
					if unix.Signal(e.ExitSignal) != unix.SIGCHLD || int(e.ParentTGID) != os.Getpid() {
						t.Errorf("%v: exit signal %d, parent %d", e, e.ExitSignal, e.ParentTGID)
					}
				}
			}
			t.Log(events)
			if len(kinds) < 3 {
				t.Fatalf("kinds %v", kinds)
			}
		})
	}
}
