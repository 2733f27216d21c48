package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// harness is an Output whose lines go to a pipe, with the other end of it.
type harness struct {
	*Output
	t    *testing.T
	dir  string
	read *os.File
	errs *os.File
	got  string // read but not yet asked for
}

func newHarness(t *testing.T, o Options) *harness {
	t.Helper()
	h := &harness{t: t, dir: filepath.Join(t.TempDir(), "log")}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h.read = r
	h.errs, err = os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	o.Dir, o.Out, o.Err = h.dir, w, h.errs
	h.Output, err = New(o)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() {
		h.read.Close()
		h.Close(time.Second)
		h.errs.Close()
	})
	return h
}

// child opens the FIFO of k as a child does.
func (h *harness) child(k Key) *os.File {
	h.t.Helper()
	f, err := os.OpenFile(h.Path(k), os.O_RDWR, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { f.Close() })
	return f
}

func (h *harness) add(k Key) *os.File {
	h.t.Helper()
	if err := h.Add(k); err != nil {
		h.t.Fatal(err)
	}
	return h.child(k)
}

// lines reads n lines.
func (h *harness) lines(n int) []string {
	h.t.Helper()
	h.Flush()
	h.read.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 64<<10)
	for strings.Count(h.got, "\n") < n {
		k, err := h.read.Read(buf)
		if err != nil {
			h.t.Fatalf("after %q: %v", h.got, err)
		}
		h.got += string(buf[:k])
	}
	var lines []string
	for range n {
		line, rest, _ := strings.Cut(h.got, "\n")
		lines, h.got = append(lines, line), rest
	}
	return lines
}

// texts reads n lines and returns them without their time.
func (h *harness) texts(n int) []string {
	h.t.Helper()
	lines := h.lines(n)
	for i := range lines {
		lines[i] = clockAtStart.ReplaceAllString(lines[i], "")
	}
	return lines
}

var clockAtStart = regexp.MustCompile(`^\d\d:\d\d:\d\d `)

func (h *harness) wantTexts(want ...string) {
	h.t.Helper()
	if d := cmp.Diff(want, h.texts(len(want))); d != "" {
		h.t.Fatal(d)
	}
}

func write(t *testing.T, f *os.File, s string) {
	t.Helper()
	if _, err := f.WriteString(s); err != nil {
		t.Fatal(err)
	}
}

// TestTranscript holds the printed form of the contract byte for byte.
func TestTranscript(t *testing.T) {
	h := newHarness(t, Options{})
	at := func(clock string) time.Time {
		tm, err := time.ParseInLocation(time.DateTime, "2012-04-10 "+clock, time.Local)
		if err != nil {
			t.Fatal(err)
		}
		return tm
	}
	k := Key{Entry: "dummy"}
	h.Print(Record{Text: "Sentry started (PID: 1511 saved in /run/sentryd/sample/sentryd.pid)."})
	h.Begin(Record{Key: k, PID: 1514, Time: at("20:17:51"), Text: "Started at 1334081871."})
	h.End(Record{Key: k, PID: 1514, Time: at("20:17:55"), Text: "Exited at 1334081875 with ExitSuccess."})
	h.End(Record{Key: k, PID: 1516, Time: at("20:18:03"), Text: "Exited at 1334081883 with ExitFailure 3."})
	h.End(Record{Key: k, PID: 1517, Time: at("20:18:04"), Text: "Exited at 1334081884 with signal SIGKILL."})
	h.End(Record{Key: k, PID: 1518, Time: at("20:18:05"), Text: "Exited at 1334081885 with unknown status."})
	h.End(Record{Key: k, Time: at("20:18:06"), Text: "Failed to start at 1334081886: exec /usr/bin/nope: no such file or directory."})
	h.Print(Record{Text: "Sentry reexec'd. Initially started at 1334082711 (Previously reexec'd at 1334082711)."})
	h.Print(Record{Text: "Bye."})
	want := []string{
		"Sentry started (PID: 1511 saved in /run/sentryd/sample/sentryd.pid).",
		"20:17:51 dummy.1514      Started at 1334081871.",
		"20:17:55 dummy.1514      Exited at 1334081875 with ExitSuccess.",
		"20:18:03 dummy.1516      Exited at 1334081883 with ExitFailure 3.",
		"20:18:04 dummy.1517      Exited at 1334081884 with signal SIGKILL.",
		"20:18:05 dummy.1518      Exited at 1334081885 with unknown status.",
		"20:18:06 dummy           Failed to start at 1334081886: exec /usr/bin/nope: no such file or directory.",
		"Sentry reexec'd. Initially started at 1334082711 (Previously reexec'd at 1334082711).",
		"Bye.",
	}
	if d := cmp.Diff(want, h.lines(len(want))); d != "" {
		t.Fatal(d)
	}
}

func TestLabelWidth(t *testing.T) {
	f := newFormatter(Seed, false)
	for entry, want := range map[string]string{
		"a":                "a.1             ",
		"abcdefghijklm":    "abcdefghijklm.1 ",
		"abcdefghijklmn":   "abcdefghijklmn.1 ",
		"abcdefghijklmnop": "abcdefghijklmnop.1 ",
	} {
		if got := string(f.appendLabel(nil, entry, 1)); got != want {
			t.Errorf("%s: %q, want %q", entry, got, want)
		}
	}
	c := newFormatter(Seed, true)
	got := string(c.appendLabel(nil, "dummy", 1514))
	plain := regexp.MustCompile(`\x1b\[\d*m`).ReplaceAllString(got, "")
	if got == plain || plain != "dummy.1514      " {
		t.Errorf("coloured %q, plain %q", got, plain)
	}
	if string(c.appendLabel(nil, "dummy", 1514)) != got {
		t.Error("the colour of an entry changes")
	}
}

// TestOrder: lines of a child stand between its Started and its Exited and
// under its pid, even when it wrote and died before anybody noticed.
func TestOrder(t *testing.T) {
	h := newHarness(t, Options{})
	k := Key{Entry: "e"}
	f := h.add(k)
	const n = 300
	var want []string
	for i := 1; i <= n; i++ {
		h.Hold(k)
		write(t, f, fmt.Sprintf("early %d\npart", i))
		h.Begin(Record{Key: k, PID: i, Incarnation: uint64(i), Text: "Started."})
		write(t, f, "ial\nlast words")
		h.End(Record{Key: k, PID: i, Text: "Exited."})
		label := string(h.reader.format.label(k, i, 0).prefix)
		want = append(want, label+"Started.", fmt.Sprintf("%searly %d", label, i),
			label+"partial", label+"last words", label+"Exited.")
	}
	h.wantTexts(want...)
	if c := h.Counts("e"); c.Lines != 3*n {
		t.Errorf("%d lines counted", c.Lines)
	}
}

// TestOrderStuck is TestOrder while nobody reads the output, and its reader
// comes back: positions hold, however late they are acted upon.
func TestOrderStuck(t *testing.T) {
	h := newHarness(t, Options{})
	k := Key{Entry: "e"}
	f := h.add(k)
	noise := h.add(Key{Entry: "noise"})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 64 {
			noise.WriteString(strings.Repeat(strings.Repeat("x", 99)+"\n", 100))
		}
	}()
	var want []string
	for i := 1; i <= 200; i++ {
		h.Hold(k)
		h.Begin(Record{Key: k, PID: i, Text: "Started."})
		write(t, f, "tail without end")
		h.End(Record{Key: k, PID: i, Text: "Exited."})
		label := string(h.reader.format.label(k, i, 0).prefix)
		want = append(want, label+"Started.", label+"tail without end", label+"Exited.")
	}
	var got []string
	for len(got) < len(want) {
		if line := h.texts(1)[0]; !strings.HasPrefix(line, "noise") {
			got = append(got, line)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
	h.read.Close() // the rest of the noise is dropped
	<-done
}

func TestStartFailed(t *testing.T) {
	h := newHarness(t, Options{})
	k := Key{Entry: "e"}
	f := h.add(k)
	h.Begin(Record{Key: k, PID: 7, Text: "Started."})
	h.End(Record{Key: k, PID: 7, Text: "Exited."})
	h.Hold(k)
	write(t, f, "a straggler\n")
	h.End(Record{Key: k, Text: "Failed to start."})
	write(t, f, "again\n")
	h.wantTexts(
		"e.7             Started.", "e.7             Exited.",
		"e.7             a straggler", "e               Failed to start.", "e.7             again")
}

func TestRemoveEndsPartialLine(t *testing.T) {
	h := newHarness(t, Options{})
	k := Key{Entry: "e"}
	f := h.add(k)
	h.Label(k, 5, 1)
	write(t, f, "whole\nhalf")
	h.Remove(k)
	h.wantTexts("e.5             whole", "e.5             half")
	if _, err := os.Lstat(h.Path(k)); !os.IsNotExist(err) {
		t.Errorf("FIFO still there: %v", err)
	}
	// The same slot again is another FIFO.
	write(t, h.add(k), "new\n")
	h.wantTexts("e               new")
	if c := h.Counts("e"); c.Lines != 3 || c.Bytes != 14 {
		t.Errorf("counts %+v", c)
	}
}
