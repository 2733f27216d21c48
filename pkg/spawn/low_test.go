package spawn

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLow: what is opened once the low descriptors are taken has a higher number, a
// child gets its own all the same, also one that is passed files, and no other.
func TestLow(t *testing.T) {
	before := openFDs(t)
	low, err := TakeLow()
	if err != nil || low == nil {
		t.Fatalf("%v, %v", low, err)
	}
	p, err := newPool(Options{Low: low}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.ep < lowest || p.wakefd < lowest {
		t.Errorf("the epoll set is %d, the eventfd %d", p.ep, p.wakefd)
	}
	for _, f := range p.flights.free {
		if f.files.slots[1] >= lowest {
			t.Errorf("a child's output gets %d", f.files.slots[1])
		}
	}
	spec := sh("ls /proc/self/fd; cat <&3")
	spec.Stdout = Stdio{Path: filepath.Join(t.TempDir(), "out"), Flags: unix.O_RDWR | unix.O_CREAT}
	passed, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	if _, err := passed.WriteString("passed\n"); err != nil {
		t.Fatal(err)
	}
	spec.Files = []int{int(passed.Fd())}
	for token := range Token(2 * maxFlights) {
		if _, err := passed.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(spec.Stdout.Path, 0); err != nil && token > 0 {
			t.Fatal(err)
		}
		p.Start(token, spec)
		p.take(t, 2)
		if out, _ := os.ReadFile(spec.Stdout.Path); string(out) != "0\n1\n2\n3\n4\npassed\n" { // 4 is the directory that ls reads
			t.Fatalf("child %d: %q", token, out)
		}
	}
	p.Close()
	p.waitSpawners()
	passed.Close()
	if n := openFDs(t); n != before {
		t.Errorf("%d descriptors open, %d before", n, before)
	}
}

// TestFewDescriptors: a process that may have few keeps them.
func TestFewDescriptors(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: fewDescriptors - 1, Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	low, err := TakeLow()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err != nil || low != nil {
		t.Errorf("%v, %v", low, err)
	}
	low.Close()
}
