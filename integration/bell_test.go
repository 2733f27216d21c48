package integration

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A bell is a FIFO into which children write lines, so that a test hears of
// them at once. A line below 4096 bytes arrives in one piece (pipe(7)).
type bell struct {
	t     *testing.T
	path  string
	lines chan string
}

func newBell(t *testing.T) *bell {
	t.Helper()
	b := &bell{t: t, path: filepath.Join(t.TempDir(), "bell"), lines: make(chan string, 1<<16)}
	if err := unix.Mkfifo(b.path, 0o622); err != nil {
		t.Fatal(err)
	}
	// Read and write: there is a reader for as long as the test lasts, and
	// never an end of file.
	f, err := os.OpenFile(b.path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := bufio.NewScanner(f); s.Scan(); {
			b.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		f.Close()
		<-done
	})
	return b
}

// next returns the next line.
func (b *bell) next() string {
	b.t.Helper()
	select {
	case line := <-b.lines:
		return line
	case <-time.After(patience):
		b.t.Fatalf("no child has written a line for %v", patience)
		return ""
	}
}

// await waits for that line, whatever comes before it.
func (b *bell) await(want string) {
	b.t.Helper()
	for b.next() != want {
	}
}

// fields takes a line of NAME=VALUE words apart.
func fields(line string) map[string]string {
	m := map[string]string{}
	for _, word := range strings.Fields(line) {
		k, v, _ := strings.Cut(word, "=")
		m[k] = v
	}
	return m
}
