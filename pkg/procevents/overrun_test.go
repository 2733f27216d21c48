package procevents

import (
	"errors"
	"os"
	"testing"
)

// A reader that stands still loses events, is told so once, after the events
// that came before the loss, and then goes on.
func TestOverrun(t *testing.T) {
	l := dial(t, Config{Buffer: 64 << 10}) // 78 events
	const probes = 1000
	for range probes {
		if err := l.Probe(); err != nil {
			t.Fatal(err)
		}
	}
	lost, err := l.Lost()
	if err != nil {
		t.Fatal(err)
	}
	if lost == 0 {
		t.Fatalf("nothing lost of %d events with a buffer of %d bytes", probes, l.Buffer())
	}

	pid := int32(os.Getpid())
	buf := make([]Event, 16)
	var before int
	for {
		n, err := l.Receive(buf)
		if errors.Is(err, ErrOverrun) {
			if n != 0 {
				t.Errorf("%d events with ErrOverrun", n)
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
	if before == 0 || before >= probes {
		t.Errorf("%d events of %d came before the loss", before, probes)
	}
	if l.Stats().Overruns == 0 {
		t.Error("Stats counts no overrun")
	}

	// It takes events again. A busy host may fill so small a buffer once more.
	for {
		if err := l.Probe(); err != nil {
			t.Fatal(err)
		}
		n, err := l.Receive(buf)
		if err != nil && !errors.Is(err, ErrOverrun) {
			t.Fatal(err)
		}
		for i := range buf[:n] {
			if l.IsProbe(&buf[i]) {
				return
			}
		}
	}
}
