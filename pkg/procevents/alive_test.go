package procevents

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deafen takes the socket out of the connector's group: it gets nothing any
// more, and no error.
func deafen(t *testing.T, l *Listener) {
	t.Helper()
	if err := l.control(func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_DROP_MEMBERSHIP, cnIdxProc)
	}); err != nil {
		t.Fatal(err)
	}
}

// Silence is noticed, what was queued before it is not lost, and a new
// subscription hears again.
func TestSilence(t *testing.T) {
	l := listen(t, Config{Kinds: []Kind{Comm}})
	l.quietAfter, l.answerWithin = time.Millisecond, 50*time.Millisecond
	if err := l.checkIn(l.quietAfter); err != nil {
		t.Fatal(err)
	}
	queued := mark(t)
	deafen(t, l)
	buf := make([]Event, 16)
	var found bool
	for {
		n, err := l.Receive(buf)
		for i := range buf[:n] {
			found = found || queued(&buf[i])
		}
		if errors.Is(err, ErrSilent) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !found {
		t.Error("an event from before was lost")
	}
	if l.Stats().Proofs == 0 {
		t.Error("it caused no event")
	}
	if _, err := l.Receive(buf); !errors.Is(err, ErrSilent) {
		t.Errorf("Receive again: %v", err)
	}
	again := listen(t, Config{Kinds: []Kind{Comm}})
	until(t, again, mark(t), func(*Event) bool { return false })
}

// An idle listener proves that it hears by events of its own, which it keeps
// for itself; its caller's deadline ends it all the same.
func TestProofs(t *testing.T) {
	for name, kinds := range map[string][]Kind{"all": nil, "exits": {Exit}, "names": {Comm}} {
		t.Run(name, func(t *testing.T) {
			l := listen(t, Config{Kinds: kinds})
			l.quietAfter, l.answerWithin = time.Millisecond, 10*time.Second
			if err := l.checkIn(l.quietAfter); err != nil {
				t.Fatal(err)
			}
			if err := l.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			pid := int32(os.Getpid())
			buf := make([]Event, 16)
			for {
				n, err := l.Receive(buf)
				for _, e := range buf[:n] {
					if e.Kind == Comm && e.TGID == pid {
						t.Errorf("%v came through", e)
					}
				}
				if errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if l.Stats().Proofs < 2 {
				t.Errorf("%d events caused", l.Stats().Proofs)
			}
		})
	}
}

// When the next check is due, whatever the caller does meanwhile.
func TestCheck(t *testing.T) {
	l := listen(t, Config{})
	deafen(t, l)
	buf := make([]Event, 16)
	for l.readable() { // from before
		if _, err := l.Receive(buf); err != nil {
			t.Fatal(err)
		}
	}
	in := func(want time.Duration) {
		t.Helper()
		if got := time.Until(l.checkAt); got > want || got < want-time.Second {
			t.Errorf("next check in %v, want %v", got, want)
		}
	}
	check := func(heard time.Duration) error {
		t.Helper()
		l.heard = now(t) - heard
		return l.check()
	}
	l.asked = false
	if err := check(4 * time.Second); err != nil || l.asked {
		t.Errorf("4 s after an event: %v, asked %t", err, l.asked)
	}
	in(6 * time.Second)
	if err := check(10 * time.Second); err != nil || !l.asked {
		t.Errorf("10 s after an event: %v, asked %t", err, l.asked)
	}
	in(2 * time.Second)
	if err := check(12 * time.Second); !errors.Is(err, ErrSilent) {
		t.Errorf("no answer: %v", err)
	}
	// An answer that was received late is an answer, and no longer a proof of
	// now.
	l.proof.from = now(t) - time.Minute
	if err := check(59 * time.Second); err != nil || !l.asked || l.proof.from < now(t)-time.Second {
		t.Errorf("a late answer: %v, asked %t", err, l.asked)
	}
	in(2 * time.Second)
}
