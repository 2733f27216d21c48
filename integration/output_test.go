package integration

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestLastWords sees what a process wrote just before its end, with and
// without an end of line, before the line about the end.
func TestLastWords(t *testing.T) {
	const n = 100
	bell := newBell(t)
	program := script(t, fmt.Sprintf(`
if [ $SENTRYD_INCARNATION -gt %d ]; then echo done > %s; exec sleep 100000; fi
echo "word $SENTRYD_INCARNATION"
printf "last %%s" $SENTRYD_INCARNATION
exit 1
`, n, bell.path))
	d := startDaemon(t, "entries: {a: {command: "+program+", delay: 0}}\n", options{})
	bell.await("done")
	d.stop()
	var want []string
	for i := range n {
		want = append(want, "Started at N.", fmt.Sprint("word ", i+1), fmt.Sprint("last ", i+1), "Exited at N with ExitFailure N.")
	}
	stamp := regexp.MustCompile(`(at|Failure) \d+`)
	var got []string
	for line := range strings.Lines(d.out.String()) {
		if len(line) > column && strings.Contains(line, " a.") && len(got) < len(want) {
			got = append(got, stamp.ReplaceAllString(strings.TrimSuffix(line[column:], "\n"), "$1 N"))
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the daemon printed\n%s", d)
	}
}

// TestNumberedLines has processes write numbered lines while the daemon
// re-execs itself: each comes once, whole and in its place.
func TestNumberedLines(t *testing.T) {
	const slots = 3
	reexecs := often(5, 30, 30)
	bell := newBell(t)
	quit := filepath.Join(t.TempDir(), "quit")
	program := script(t, fmt.Sprintf(`
i=0
while [ ! -e %s ]; do
	end=$((i + 100))
	while [ $i -lt $end ]; do echo "this is line number $i of slot $SENTRYD_SLOT, and no other"; i=$((i + 1)); done
	sleep 0.01
done
echo "$SENTRYD_SLOT $i" > %s
exec sleep 100000
`, quit, bell.path))
	d := startDaemon(t, fmt.Sprintf("entries: {a: {command: %s, count: %d}}\n", program, slots), options{})
	for range reexecs {
		d.reexec()
	}
	if err := os.WriteFile(quit, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	wrote := map[int]int{}
	for range slots {
		var slot, n int
		if _, err := fmt.Sscan(bell.next(), &slot, &n); err != nil {
			t.Fatal(err)
		}
		wrote[slot] = n
	}
	d.stop()
	next := map[int]int{}
	whole := regexp.MustCompile(`^\d\d:\d\d:\d\d a\.\d+ +this is line number (\d+) of slot (\d), and no other$`)
	for line := range strings.Lines(d.out.String()) {
		if !strings.Contains(line, "number") && !strings.Contains(line, "slot") {
			continue
		}
		m := whole.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			t.Errorf("not a line that was written: %q", line)
			continue
		}
		number, _ := strconv.Atoi(m[1])
		slot, _ := strconv.Atoi(m[2])
		if number != next[slot] {
			t.Errorf("slot %d: line %d where line %d should be", slot, number, next[slot])
		}
		next[slot] = number + 1
	}
	for slot, n := range wrote {
		if next[slot] != n || n == 0 {
			t.Errorf("slot %d wrote %d lines, the last one printed is %d", slot, n, next[slot]-1)
		}
	}
	t.Logf("lines written by slot: %v", wrote)
}

// TestLineWithoutEnd passes a megabyte without an end of line on, in pieces,
// and loses none of it.
func TestLineWithoutEnd(t *testing.T) {
	const size = 1_000_000
	bell := newBell(t)
	program := script(t, fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x\necho end\necho after\necho done > %s\nexec sleep 100000\n", size, bell.path))
	d := startDaemon(t, "entries: {a: {command: "+program+"}}\n", options{})
	bell.await("done")
	d.stop()
	x := 0
	for line := range strings.Lines(d.out.String()) {
		if len(line) > 100<<10 {
			t.Errorf("a line of %d bytes", len(line))
		}
		x += strings.Count(line[min(len(line), column):], "x")
	}
	if x < size || x > size+10 { // "Exited" has one too
		t.Errorf("%d of %d bytes came through", x, size)
	}
	if !strings.Contains(d.out.String(), "xend\n") || !strings.Contains(d.out.String(), " after\n") {
		t.Errorf("what follows is missing\n%s", d)
	}
}

// TestReaderGone is `sentryd start | head -1`: the daemon goes on, and says in its
// state that output is dropped.
func TestReaderGone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t, "entries: {a: {command: [sh, -c, 'echo here; sleep 0.02'], delay: 10, count: 3}}\n", options{})
	d.start(options{stdout: w})
	w.Close()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "Sentry started (PID: ") {
		t.Errorf("the first line is %q (%v)", line, err)
	}
	r.Close()
	d.await("restarts", func(s *state) bool { return s.entry("a").Starts > 30 })
	const dropped = "Standard output fails (broken pipe): what would be printed is dropped until it works again."
	says := func(s *state) bool { return slices.Contains(s.Daemon.Missing, dropped) }
	d.await("the state says that output is dropped", says)
	if _, out, _ := d.ctl("status"); !strings.Contains(out, "\n! "+dropped+"\n") {
		t.Errorf("status says\n%s", out)
	}
	s := d.reexec()
	if s.Daemon.PID != d.pid {
		t.Errorf("the pid is %d, was %d", s.Daemon.PID, d.pid)
	}
	d.await("the state says so after a re-exec", says)
	starts := s.entry("a").Starts
	d.await("restarts after a re-exec", func(s *state) bool { return s.entry("a").Starts > starts+30 })
	d.stop()
}

// TestReaderStuck leaves the daemon's standard output full: supervision, the
// API and a re-exec go on, and the end comes.
func TestReaderStuck(t *testing.T) {
	some := uint64(often(30, 100, 100))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	d := newDaemon(t, "entries:\n  loud: {command: [yes, a line of output], count: 2}\n  a: {command: sleep 0.02, delay: 10, count: 3}\n", options{})
	d.start(options{stdout: w})
	w.Close()
	d.await("restarts", func(s *state) bool { return s.entry("loud").Running == 2 && s.entry("a").Starts > some })
	ids := d.identities(d.state().entry("loud"))
	s := d.reexec()
	starts := s.entry("a").Starts
	s = d.await("restarts after a re-exec", func(s *state) bool { return s.entry("a").Starts > starts+some })
	d.same(ids, s.entry("loud"))
	d.stop()
}
