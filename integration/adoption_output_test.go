package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// numbered matches a whole line of the entry lines.
var numbered = regexp.MustCompile(`(?m)^\S+ lines\.\d+ +(\d{12})$`)

// TestOutputOverADeath: a child that writes as fast as it can does not die with the
// daemon, goes on being read, and what is lost is no more than what the daemon had
// in hand.
func TestOutputOverADeath(t *testing.T) {
	const inHand = 256 << 10
	dir := t.TempDir()
	file := func(name string) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	numbers := func(f *os.File) (first, last int) {
		text, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		lines := numbered.FindAllSubmatch(text, -1)
		if len(lines) == 0 {
			t.Fatalf("no line in %d bytes", len(text))
		}
		first, err1 := strconv.Atoi(string(lines[0][1]))
		last, err2 := strconv.Atoi(string(lines[len(lines)-1][1]))
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		return first, last
	}
	enough := float64(often(20_000, 100_000, 100_000))
	printed := func(d *daemon) {
		for d.metrics()[`sentryd_log_lines_total{entry="lines"}`] < enough {
			d.alive()
		}
	}
	out := file("0")
	d := newDaemon(t, "entries: {lines: {command: seq -f %012.0f 1 1000000000000}}\n", options{})
	d.rise(options{stdout: out})
	ids := d.identities(d.running("lines", 1).entry("lines"))
	for n := range often(1, 3, 20) {
		printed(d)
		d.die()
		_, last := numbers(out)
		out = file(strconv.Itoa(n + 1))
		s, _ := d.rise(options{stdout: out})
		d.same(ids, s.entry("lines"))
		printed(d)
		first, _ := numbers(out)
		if lost := (first - last - 1) * 13; lost < 0 || lost > inHand {
			t.Errorf("%d is followed by %d", last, first)
		} else {
			t.Logf("%d bytes were lost", lost)
		}
	}
	d.must("stop", "lines")
	d.signal(unix.SIGTERM)
	d.finish(0)
}
