package logs

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openFDs counts the descriptors of this process.
func openFDs(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// TestThousandSlots: every line of a thousand slots comes once, under its own
// label, from one goroutine; afterwards no descriptor is left.
func TestThousandSlots(t *testing.T) {
	const slots = 1000
	each := 20
	if testing.Short() {
		each = 2
	}
	before, goroutines := openFDs(t), runtime.NumGoroutine()
	h := newHarness(t, Options{})
	dir := openFDs(t)
	for i := range slots {
		if err := h.Add(Key{Entry: "e", Slot: i}); err != nil {
			t.Fatal(err)
		}
		h.Label(Key{Entry: "e", Slot: i}, i+1, 1)
	}
	if n := openFDs(t); n != dir+slots {
		t.Errorf("%d descriptors for %d slots", n-dir, slots)
	}
	if n := runtime.NumGoroutine(); n > goroutines+1 {
		t.Errorf("%d goroutines more", n-goroutines)
	}
	go func() {
		for j := range each {
			for i := range slots {
				f, err := os.OpenFile(h.Path(Key{Entry: "e", Slot: i}), os.O_RDWR, 0)
				if err != nil {
					t.Error(err)
					return
				}
				fmt.Fprintf(f, "slot %d line %d\n", i, j)
				f.Close()
			}
		}
	}()
	next := make([]int, slots)
	for range slots * each {
		var pid, slot, line int
		text := h.texts(1)[0]
		if _, err := fmt.Sscanf(text, "e.%d slot %d line %d", &pid, &slot, &line); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if pid != slot+1 || next[slot] != line {
			t.Fatalf("%q: want line %d of slot %d", text, next[slot], pid-1)
		}
		next[slot]++
	}
	for i := range slots {
		h.Remove(Key{Entry: "e", Slot: i})
	}
	if err := h.Close(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	h.read.Close()
	h.errs.Close()
	if n := openFDs(t); n > before {
		t.Errorf("%d descriptors left", n-before)
	}
	if left, _ := os.ReadDir(h.dir); len(left) > 0 {
		t.Errorf("%d FIFOs left", len(left))
	}
}

// TestStuckReader: with nobody reading, the children's FIFOs fill and they
// wait; Print and Pause do not; what the queue cannot hold is counted and said.
func TestStuckReader(t *testing.T) {
	h := newHarness(t, Options{})
	k := Key{Entry: "e"}
	if err := h.Add(k); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(h.Path(k), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	line := []byte(strings.Repeat("y", 1023) + "\n")
	// Writable again and again until everything on the way is full.
	wrote := 0
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, _ := unix.Poll(p, 500); n == 0 {
			break
		}
		if n, err := unix.Write(fd, line); err == nil {
			wrote += n / len(line)
		}
		if wrote > 10<<10 {
			t.Fatal("10 MiB went nowhere: the FIFO is read though the output is stuck")
		}
	}
	const n = 100_000
	start := time.Now()
	for i := range n {
		h.Print(Record{Text: fmt.Sprintf("own %d", i)})
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("%d lines took %v", n, d)
	}
	// The slot goes on meanwhile; where it got to is not lost.
	h.Hold(k)
	h.Begin(Record{Key: k, PID: 99, Text: "Started."})
	start = time.Now()
	if _, err := h.Pause(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("Pause took %v", d)
	}
	h.Resume()
	var children, own int
	for own+children < wrote || h.Stats().Dropped == 0 || own == 0 {
		switch text := h.texts(1)[0]; {
		case strings.HasPrefix(text, "own "):
			if text != fmt.Sprintf("own %d", own) {
				t.Fatalf("%q after %d", text, own)
			}
			own++
		default:
			children++
		}
	}
	for {
		text := h.texts(1)[0]
		if strings.HasPrefix(text, "own ") {
			own++
			continue
		}
		if strings.HasPrefix(text, "Sentry lost ") {
			var lost int
			fmt.Sscanf(text, "Sentry lost %d", &lost)
			if lost != n+1-own || int(h.Stats().Dropped) != lost {
				t.Errorf("%q, %d of %d seen, stats %+v", text, own, n, h.Stats())
			}
			break
		}
		children++
	}
	if _, err := unix.Write(fd, []byte("now\n")); err != nil {
		t.Fatal(err)
	}
	for {
		text := h.texts(1)[0]
		if strings.HasSuffix(text, "now") {
			if text != "e.99            now" {
				t.Errorf("%q: the label was lost", text)
			}
			break
		}
		children++
	}
	if children != wrote {
		t.Errorf("%d of %d lines of the child", children, wrote)
	}
}

// TestFairness: a child that writes without end does not keep another's line
// from being printed.
func TestFairness(t *testing.T) {
	h := newHarness(t, Options{})
	stop := make(chan struct{})
	noisy := h.add(Key{Entry: "noisy"})
	quiet := h.add(Key{Entry: "quiet"})
	go func() {
		chunk := strings.Repeat(strings.Repeat("n", 63)+"\n", 1024)
		for {
			select {
			case <-stop:
				return
			default:
				noisy.WriteString(chunk)
			}
		}
	}()
	defer close(stop)
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	for i := range rounds {
		h.texts(1000)
		write(t, quiet, fmt.Sprintf("line %d\n", i))
		between := 0
		for !strings.HasPrefix(h.texts(1)[0], "quiet") {
			// Pipes, turns and buffers on the way: not more than 8 MiB of them.
			if between++; between > 8<<20/64 {
				t.Fatalf("%d noisy lines before line %d", between, i)
			}
		}
	}
}

// TestHugeLine: 100 MB without a newline pass in bounded memory.
func TestHugeLine(t *testing.T) {
	size := 100 << 20
	if testing.Short() {
		size = 2 << 20
	}
	h := newHarness(t, Options{})
	k := Key{Entry: "e"}
	f := h.add(k)
	h.Label(k, 1, 1)
	go func() {
		chunk := strings.Repeat("z", 1<<20)
		for range size >> 20 {
			f.WriteString(chunk)
		}
		f.WriteString("\n")
	}()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	in := bufio.NewReader(h.read)
	h.read.SetReadDeadline(time.Now().Add(60 * time.Second))
	prefix := len("20:17:55 ") + labelWidth
	for got := 0; got < size; {
		line, err := in.ReadSlice('\n')
		for err == bufio.ErrBufferFull {
			got += strings.Count(string(line), "z")
			line, err = in.ReadSlice('\n')
		}
		if err != nil {
			t.Fatal(err)
		}
		got += strings.Count(string(line), "z")
		if len(line) > maxLine+prefix+1 {
			t.Fatalf("piece of %d bytes", len(line))
		}
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 32<<20 {
		t.Errorf("heap grew by %d MiB", grown>>20)
	}
	if c := h.Counts("e"); c.Lines != uint64(size/maxLine) {
		t.Errorf("%d pieces", c.Lines)
	}
}

// TestOutputFails: what a failing output loses is counted and, when it works
// again, said; nothing of it is glued to the line after it.
func TestOutputFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(flags int) *os.File {
		f, err := os.OpenFile(path, flags|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	read := open(os.O_RDONLY)
	w := open(os.O_WRONLY)
	errs, err := os.Create(filepath.Join(dir, "err"))
	if err != nil {
		t.Fatal(err)
	}
	defer errs.Close()
	o, err := New(Options{Dir: filepath.Join(dir, "log"), Out: w, Err: errs})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	read.Close() // EPIPE from now on
	o.Print(Record{Text: "lost 1"})
	waitDropped(t, o, 1)
	o.Print(Record{Text: "lost 2"})
	waitDropped(t, o, 2)
	if err := o.Failing(); err != unix.EPIPE {
		t.Errorf("it fails with %v", err)
	}
	read = open(os.O_RDONLY)
	defer read.Close()
	o.Print(Record{Text: "seen"})
	in := bufio.NewScanner(read)
	read.SetReadDeadline(time.Now().Add(10 * time.Second))
	for _, want := range []string{"seen", "Sentry lost 2 lines of output: broken pipe."} {
		if !in.Scan() || in.Text() != want {
			t.Fatalf("%q, want %q (%v)", in.Text(), want, in.Err())
		}
	}
	if err := o.Failing(); err != nil {
		t.Errorf("it works again, and fails with %v", err)
	}
	if err := o.Close(time.Second); err != nil {
		t.Fatal(err)
	}
	said, err := os.ReadFile(errs.Name())
	if err != nil || strings.Count(string(said), "level=WARN") != 1 {
		t.Errorf("said on stderr: %q %v", said, err)
	}
}

// waitDropped waits until the reader has dropped n lines. There is nothing to
// wait on in the API, so it yields.
func waitDropped(t *testing.T, o *Output, n uint64) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); o.Stats().Dropped < n; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%+v, want %d dropped", o.Stats(), n)
		}
	}
}
