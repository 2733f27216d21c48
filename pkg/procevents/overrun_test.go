package procevents

import (
	"errors"
	"os"
	"testing"
)

// A reader that stands still loses events, is told so once, after the events
// that came before the loss, and then goes on.
func TestOverrun(t *testing.T) {
	l := listen(t, Config{Buffer: 64 << 10}) // 78 events
	const events = 1000
	for range events {
		mark(t)
	}
	lost, err := l.Lost()
	if err != nil {
		t.Fatal(err)
	}
	if lost == 0 {
		t.Fatalf("nothing lost of %d events with a buffer of %d bytes", events, l.Buffer())
	}

	pid := int32(os.Getpid())
	buf := make([]Event, 16)
	var before int
	for {
		n, err := l.Receive(buf)
		var loss *LostError
		if errors.As(err, &loss) {
			if n != 0 {
				t.Errorf("%d events with an error", n)
			}
			if !errors.Is(err, ErrLost) || !loss.Overrun || loss.Events < uint64(lost) {
				t.Errorf("%+v (%v), want an overrun of at least %d", loss, err, lost)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range buf[:n] {
			if e.Kind == Comm && e.TGID == pid {
				before++
			}
		}
	}
	t.Logf("%d events before the loss, %d lost, buffer %d", before, lost, l.Buffer())
	if before == 0 || before >= events {
		t.Errorf("%d events of %d came before the loss", before, events)
	}
	if l.Stats().Overruns == 0 {
		t.Error("Stats counts no overrun")
	}

	// It takes events again, and what the gap in their numbers shows is not
	// reported once more. A busy host may fill so small a buffer again.
	for {
		found := mark(t)
		n, err := l.Receive(buf)
		var loss *LostError
		if err != nil && (!errors.As(err, &loss) || !loss.Overrun) {
			t.Fatal(err)
		}
		for i := range buf[:n] {
			if found(&buf[i]) {
				return
			}
		}
	}
}

// Gaps in the numbers that no overrun explains are a loss of their own.
func TestSequence(t *testing.T) {
	const none = ^uint32(0)
	for name, tc := range map[string]struct {
		messages [][2]uint32 // CPU, number
		drops    uint32
		want     uint64
	}{
		"in order, each CPU by itself": {[][2]uint32{{0, 5}, {3, 100}, {0, 6}, {3, 101}, {0, 7}}, 0, 0},
		"the first tells nothing":      {[][2]uint32{{1, 77}}, 0, 0},
		"a gap":                        {[][2]uint32{{0, 5}, {0, 8}, {0, 9}}, 0, 2},
		"gaps of two CPUs":             {[][2]uint32{{0, 5}, {1, 5}, {0, 8}, {1, 9}}, 0, 5},
		"an overrun":                   {[][2]uint32{{0, 5}, {0, 8}}, 2, 0},
		"more than an overrun":         {[][2]uint32{{0, 5}, {0, 8}}, 1, 1},
		"an overrun to be seen yet":    {[][2]uint32{{0, 5}, {0, 8}}, 9, 0},
		"around":                       {[][2]uint32{{0, none}, {0, 0}, {0, 2}}, 0, 1},
		"begun anew":                   {[][2]uint32{{0, 1000}, {0, 3}, {0, 4}}, 0, 0},
		"no CPU":                       {[][2]uint32{{none, 1}, {none, 7}}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var s sequence
			for _, m := range tc.messages {
				s.add(m[0], m[1])
			}
			if got := s.unexplained(tc.drops); got != tc.want {
				t.Errorf("%d lost, want %d", got, tc.want)
			}
			if got := s.unexplained(tc.drops); got != 0 {
				t.Errorf("%d lost once more", got)
			}
		})
	}
}

// TestOthersSubscribe: the answers that others get have numbers too, and are no gap.
func TestOthersSubscribe(t *testing.T) {
	l := listen(t, Config{})
	for range 20 {
		until(t, l, mark(t), func(*Event) bool { return false }) // the numbers of this CPU are known
		listen(t, Config{}).Close()
	}
	until(t, l, mark(t), func(*Event) bool { return false })
}

// A gap in what the kernel sends reaches the caller as an error, after the
// events, and no event is lost by that.
func TestGapIsReported(t *testing.T) {
	l := listen(t, Config{})
	until(t, l, mark(t), func(*Event) bool { return false })
	for cpu := range l.sequence.next {
		l.sequence.next[cpu] -= 3 // as if three had not come, on each
	}
	found := mark(t)
	buf := make([]Event, 16)
	var seen bool
	for {
		n, err := l.Receive(buf)
		var loss *LostError
		switch {
		case errors.As(err, &loss):
			if loss.Overrun || loss.Events == 0 || loss.Events%3 != 0 {
				t.Errorf("%+v: %v", loss, err)
			}
			if !seen {
				t.Error("the event came after the loss")
			}
			return
		case err != nil:
			t.Fatal(err)
		}
		for i := range buf[:n] {
			seen = seen || found(&buf[i])
		}
	}
}
