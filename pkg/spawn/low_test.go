package spawn

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLow: what is opened once the low descriptors are taken has a higher number, and a
// child gets its own all the same, however many are passed files at once.
func TestLow(t *testing.T) {
	p := closedAtEnd(t, func() (*Pool, error) { return New(Options{Low: takeLow(math.MaxUint64)}) })
	if p.ep < lowEnd || p.wakefd < lowEnd {
		t.Errorf("the epoll set is %d, the eventfd %d", p.ep, p.wakefd)
	}
	for _, f := range p.flights.free {
		if f.files.slots[1] >= lowEnd {
			t.Errorf("a child's output gets %d", f.files.slots[1])
		}
	}
	const n = 4 * maxFlights
	dir := t.TempDir()
	var specs [n]*Spec
	for i := range specs {
		s := sh("ls /proc/self/fd; cat <&3; cat <&4")
		s.Stdout = Stdio{Path: filepath.Join(dir, fmt.Sprint(i)), Flags: unix.O_RDWR | unix.O_CREAT}
		for j := range 2 {
			f, err := os.CreateTemp(dir, "")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := fmt.Fprintf(f, "passed to %d as %d\n", i, j); err != nil {
				t.Fatal(err)
			}
			if _, err := f.Seek(0, 0); err != nil {
				t.Fatal(err)
			}
			s.Files = append(s.Files, int(f.Fd()))
		}
		specs[i] = s
		p.Start(Token(i), s)
	}
	p.take(t, 2*n)
	for i, s := range specs {
		want := fmt.Sprintf("0\n1\n2\n3\n4\n5\npassed to %d as 0\npassed to %d as 1\n", i, i) // 5 is the directory that ls reads
		if out, _ := os.ReadFile(s.Stdout.Path); string(out) != want {
			t.Errorf("child %d: %q", i, out)
		}
	}
}

// TestLowIsGivenOnce: whoever takes at the same time gets another.
func TestLowIsGivenOnce(t *testing.T) {
	low := takeLow(math.MaxUint64)
	defer low.Close()
	var mu sync.Mutex
	var done sync.WaitGroup
	seen := make(map[int]bool)
	for range 4 {
		done.Go(func() {
			for fd := low.take(); fd >= 0; fd = low.take() {
				mu.Lock()
				if seen[fd] {
					t.Errorf("%d was given twice", fd)
				}
				seen[fd] = true
				mu.Unlock()
			}
		})
	}
	done.Wait()
	for fd := range seen {
		low.give(fd)
	}
	if len(low.fds) != len(seen) || len(seen) < 8 {
		t.Errorf("%d were given, %d given back", len(seen), len(low.fds))
	}
}

// TestFewDescriptors: a process that may have few keeps them.
func TestFewDescriptors(t *testing.T) {
	before := openFDs(t)
	if low := takeLow(fewDescriptors - 1); low != nil {
		t.Errorf("%+v", low)
	}
	if n := openFDs(t); n != before {
		t.Errorf("%d descriptors open, %d before", n, before)
	}
}

// TestFewAreHeld: where few descriptors are allowed, processes have most of them.
func TestFewAreHeld(t *testing.T) {
	for limit, want := range map[uint64]int32{256: 32, 4096: 512, 8192: 1024, 1 << 20: 1024, math.MaxUint64: 1024} {
		if got := mayBeHeld(limit); got != want {
			t.Errorf("of %d: %d, want %d", limit, got, want)
		}
	}
}
