package procevents

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listen subscribes, or skips where that cannot be.
func listen(t testing.TB, cfg Config) *Listener {
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

// mark causes an event and returns what recognises it.
func mark(t testing.TB) func(*Event) bool {
	t.Helper()
	p, err := prove()
	if err != nil {
		t.Fatal(err)
	}
	return p.is
}

func now(t testing.TB) time.Duration {
	t.Helper()
	at, err := monotonic()
	if err != nil {
		t.Fatal(err)
	}
	return at
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
			l := listen(t, Config{})
			before := now(t)
			cmd := exec.Command("/bin/sh", "-c", tc.script)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			pid := int32(cmd.Process.Pid)
			events := until(t, l,
				func(e *Event) bool { return e.Kind == Exit && e.PID == pid },
				func(e *Event) bool { return e.TGID == pid })
			after := now(t) // Exit may be later than the wait
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
					// Once it is reaped it has no parent any more.
					orphan := e.ParentTGID == 0
					if unix.Signal(e.ExitSignal) != unix.SIGCHLD || !orphan && int(e.ParentTGID) != os.Getpid() {
						t.Errorf("%v: exit signal %d, parent %d", e, e.ExitSignal, e.ParentTGID)
					}
				}
			}
			// The shell may change its session or name, but not this order.
			if len(kinds) < 3 || kinds[0] != Fork || kinds[1] != Exec || kinds[len(kinds)-1] != Exit {
				t.Errorf("kinds %v, want fork, exec, exit", kinds)
			}
		})
	}
}

func TestBuffer(t *testing.T) {
	for _, want := range []int{64 << 10, 64 << 20} {
		if got := listen(t, Config{Buffer: want}).Buffer(); got != want && os.Getuid() == 0 {
			t.Errorf("Buffer() = %d, want %d", got, want)
		}
	}
	if got := listen(t, Config{}).Buffer(); got != DefaultBuffer && os.Getuid() == 0 {
		t.Errorf("Buffer() = %d, want %d", got, DefaultBuffer)
	}
}

// An inherited socket, here a duplicate, goes on where the first left off.
func TestFromFile(t *testing.T) {
	first := listen(t, Config{Buffer: 1 << 20})
	queued := mark(t)
	f, err := first.File()
	if err != nil {
		t.Fatal(err)
	}
	second, err := FromFile(f, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	until(t, second, queued, queued) // before the hand-over
	after := mark(t)
	until(t, second, after, after)
	if second.Buffer() != first.Buffer() {
		t.Errorf("Buffer() = %d, want %d", second.Buffer(), first.Buffer())
	}
	// Each of them is closed. Before Linux 6.6 the kernel counts requests, not
	// sockets, and one end too many would silence the next listener.
	if err := second.send(mcastListen); err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if err := second.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
}

func TestFromFileRefuses(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := FromFile(r, Config{}); err == nil {
		t.Error("takes a pipe")
	}
	regular, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()
	if _, err := FromFile(regular, Config{}); err == nil {
		t.Error("takes a regular file")
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	route := os.NewFile(uintptr(fd), "route")
	defer route.Close()
	if _, err := FromFile(route, Config{}); err == nil {
		t.Error("takes a socket of another netlink family")
	}
}

// A Receive that waits is ended by Close and by a deadline. A closed pipe of
// events stays quiet, so a socket that never subscribed is used.
func TestUnblock(t *testing.T) {
	for name, tc := range map[string]struct {
		end  func(*Listener) error
		want error
	}{
		"close":    {(*Listener).Close, os.ErrClosed},
		"deadline": {func(l *Listener) error { return l.SetReadDeadline(time.Now()) }, os.ErrDeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_CONNECTOR)
			if err != nil {
				t.Skipf("needs the proc connector: %v", err)
			}
			l, err := FromFile(os.NewFile(uintptr(fd), "connector"), Config{})
			if err != nil {
				t.Fatal(err)
			}
			if err := l.send(mcastListen); err != nil { // what Close takes back; still it is in no group
				t.Fatal(err)
			}
			got := make(chan error)
			go func() {
				_, err := l.Receive(make([]Event, 1))
				got <- err
			}()
			if err := tc.end(l); err != nil {
				t.Fatal(err)
			}
			if err := <-got; !errors.Is(err, tc.want) {
				t.Errorf("Receive: %v, want %v", err, tc.want)
			}
			if _, err := l.Receive(make([]Event, 1)); !errors.Is(err, tc.want) {
				t.Errorf("Receive again: %v, want %v", err, tc.want)
			}
			if _, err := l.Receive(nil); !errors.Is(err, io.ErrShortBuffer) {
				t.Errorf("Receive(nil): %v", err)
			}
		})
	}
}

// What a program sends is not taken for the kernel's, and nonsense is counted.
func TestForeign(t *testing.T) {
	l := listen(t, Config{})
	sender, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sender)
	var to unix.Sockaddr
	if err := l.control(func(fd int) (err error) { to, err = unix.Getsockname(fd); return err }); err != nil {
		t.Fatal(err)
	}
	forged := message(0x80000000, 1, 1, 0, 17, 0, 0)
	if err := unix.Sendto(sender, forged, 0, to); err != nil {
		t.Skipf("needs CAP_NET_ADMIN to forge: %v", err)
	}
	got := until(t, l, mark(t), func(e *Event) bool { return e.Kind == Exit && e.PID == 1 })
	if len(got) != 0 {
		t.Errorf("a forged exit came through: %v", got)
	}
	if s := l.Stats(); s.Foreign != 1 || s.Malformed != 0 {
		t.Errorf("Stats() = %+v, want one foreign", s)
	}
}

func TestReceiveAllocs(t *testing.T) {
	l := listen(t, Config{})
	buf := make([]Event, 64)
	if n := testing.AllocsPerRun(200, func() {
		if _, err := prove(); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Receive(buf); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a Receive", n)
	}
}

// BenchmarkReceive includes causing the events, 13 µs each.
func BenchmarkReceive(b *testing.B) {
	l := listen(b, Config{Buffer: 64 << 20})
	if err := l.SetReadDeadline(time.Time{}); err != nil {
		b.Fatal(err)
	}
	buf := make([]Event, 128)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := prove(); err != nil {
			b.Fatal(err)
		}
		if _, err := l.Receive(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDrain is the reader's cost alone: batches of 128 queued events. Causing
// them is not timed and takes thirty times as long: use -benchtime 500x.
func BenchmarkDrain(b *testing.B) {
	l := listen(b, Config{Buffer: 64 << 20})
	if err := l.SetReadDeadline(time.Time{}); err != nil {
		b.Fatal(err)
	}
	buf := make([]Event, 128)
	b.ReportAllocs()
	var events int
	for b.Loop() {
		b.StopTimer()
		for range buf {
			if _, err := prove(); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		n, err := l.Receive(buf)
		if err != nil {
			b.Fatal(err)
		}
		events += n
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(events), "ns/event")
}

func BenchmarkDecode(b *testing.B) {
	raw := message(0x80000000, 1, 1, 0, 17, 1, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}
