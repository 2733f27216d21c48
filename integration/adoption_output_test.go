package integration

import (
	"bufio"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestNoLineIsLost: of programs that write 12 MB a second each line is printed once,
// whole and in order, though the daemon is killed at any moment, or executes itself
// anew. Standard output is a file, so that can be told of the last write too.
func TestNoLineIsLost(t *testing.T) {
	bin := program(t, "numbers")
	for name, flags := range map[string]int{"append": os.O_APPEND, "offset": 0} {
		t.Run(name, func(t *testing.T) {
			out, err := os.OpenFile(filepath.Join(t.TempDir(), "out"), os.O_CREATE|os.O_WRONLY|flags, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			from := rand.New(rand.NewSource(seed(t)))
			d := newDaemon(t, "entries: {lines: {command: "+bin+"}}\n", options{})
			d.rise(options{stdout: out})
			ids := d.identities(d.running("lines", 1).entry("lines"))
			deaths := often(2, 5, 50)
			for n := range deaths {
				seen := d.metrics()[`sentryd_log_lines_total{entry="lines"}`]
				for d.metrics()[`sentryd_log_lines_total{entry="lines"}`] < seen+20_000 {
					d.alive()
				}
				if n%2 == 1 {
					d.same(ids, d.reexec().entry("lines"))
				}
				select {
				case <-time.After(time.Duration(from.Intn(20_000)) * time.Microsecond): // a random moment, not a wait for anything
				case <-d.ended:
					t.Fatalf("the daemon ended by itself\n%s", d)
				}
				d.die()
				s, _ := d.rise(options{stdout: out})
				d.same(ids, s.entry("lines"))
			}
			d.must("stop", "lines")
			d.signal(unix.SIGTERM)
			d.finish(0)
			n, bytes := checkNumbers(t, out.Name())
			t.Logf("%d lines, %d bytes, over %d deaths", n, bytes, deaths)
		})
	}
}

// checkNumbers fails the test unless the lines of the program numbers are all there,
// once each, whole and in order, but for the last one.
func checkNumbers(t *testing.T, path string) (lines, bytes int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fill := strings.Repeat("x", 200)
	cut := ""
	for in := bufio.NewScanner(f); in.Scan(); {
		line := in.Text()
		if len(line) < 25 || !strings.HasPrefix(line[9:], "lines.") {
			continue // of the daemon itself
		}
		text := line[25:]
		if strings.HasPrefix(text, "Started at ") || strings.HasPrefix(text, "Exited at ") {
			continue
		}
		if cut != "" {
			t.Fatalf("after line %d: %q, and then %q", lines, cut, line)
		}
		lines++
		if want := strconv.Itoa(lines) + " " + fill[:lines*lines%len(fill)]; text != want {
			cut = line
			if !strings.HasPrefix(want, text) {
				t.Fatalf("%q, want %q", line, want)
			}
		}
		bytes += len(text) + 1
	}
	if lines == 0 {
		t.Fatal(fmt.Errorf("no line in %s", path))
	}
	return lines, bytes
}
