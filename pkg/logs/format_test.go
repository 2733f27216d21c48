package logs

import (
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestJSON: children's lines, the daemon's own and its diagnostics are records
// of one stream, in order, with the same facts.
func TestJSON(t *testing.T) {
	h := newHarness(t, Options{Format: JSON})
	k := Key{Entry: "e", Slot: 2}
	f := h.add(k)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	h.Begin(Record{Key: k, PID: 7, Incarnation: 3, Time: at, Text: "Started at 1.", Msg: "started"})
	write(t, f, "say \"hi\"\x1b[2J\n")
	h.End(Record{Key: k, PID: 7, Incarnation: 3, Time: at, Msg: "exited", Level: slog.LevelInfo, Attrs: []slog.Attr{slog.Int("code", 3), slog.Duration("uptime", 4003*time.Millisecond)}})
	h.Logger().Warn("careful", "why", "test", "every", 5*time.Second)
	h.Print(Record{Time: at, Text: "Bye."})
	var got []map[string]any
	for _, line := range h.lines(5) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if _, err := time.Parse(time.RFC3339Nano, m["time"].(string)); err != nil {
			t.Error(err)
		}
		delete(m, "time")
		got = append(got, m)
	}
	slot := func(m map[string]any) map[string]any {
		m["level"], m["entry"], m["slot"], m["pid"], m["incarnation"] = "INFO", "e", 2.0, 7.0, 3.0
		return m
	}
	want := []map[string]any{
		slot(map[string]any{"msg": "started"}),
		slot(map[string]any{"msg": `say "hi"\x1b[2J`, "stream": "output"}),
		slot(map[string]any{"msg": "exited", "code": 3.0, "uptime": "4.003s"}),
		{"level": "WARN", "msg": "careful", "why": "test", "every": "5s"},
		{"level": "INFO", "msg": "Bye."},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
}

func TestLogfmt(t *testing.T) {
	h := newHarness(t, Options{Format: Logfmt})
	k := Key{Entry: "e"}
	f := h.add(k)
	h.Label(k, 7, 1)
	write(t, f, "two words level=ERROR\n")
	line := h.lines(1)[0]
	_, rest, _ := strings.Cut(line, " ")
	if want := `level=INFO msg="two words level=ERROR" entry=e slot=0 pid=7 incarnation=1 stream=output`; rest != want {
		t.Errorf("%q", line)
	}
}

// TestDiagnostics: in the form for people they go to standard error.
func TestDiagnostics(t *testing.T) {
	h := newHarness(t, Options{Level: slog.LevelWarn})
	h.Logger().Info("not wanted")
	h.Logger().Warn("wanted", "a", 1)
	if err := h.Close(time.Second); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(h.errs.Name())
	if err != nil || !strings.HasSuffix(string(got), "level=WARN msg=wanted a=1\n") || strings.Contains(string(got), "not") {
		t.Errorf("%q %v", got, err)
	}
	h.Logger().Warn("after the end") // is lost, and does nothing else
	h.Print(Record{Text: "after the end"})
}

// TestForgery: whatever a child writes stays on lines with its own label.
func TestForgery(t *testing.T) {
	h := newHarness(t, Options{})
	k := Key{Entry: "evil"}
	f := h.add(k)
	h.Label(k, 6, 1)
	write(t, f, "a\r20:17:55 good.1514      Exited\n"+
		"b\x1b[1A\x1b[2K20:17:55 good.1514\n"+
		"c\u0085d\u2028e\x0b\x0cf\x00\n"+
		"\x9b1Ag\n")
	h.wantTexts(
		`evil.6          a\x0d20:17:55 good.1514      Exited`,
		`evil.6          b\x1b[1A\x1b[2K20:17:55 good.1514`,
		`evil.6          c\u0085d\u2028e\x0b\x0cf\x00`,
		`evil.6          \x9b1Ag`)
	h.Print(Record{Key: Key{Entry: "e"}, Text: "exec /a\nb: no such file"})
	h.wantTexts(`e               exec /a\x0ab: no such file`)
}

// TestLineAllocations: a line in the form for people costs no allocation.
func TestLineAllocations(t *testing.T) {
	f := newFormatter(Seed, false)
	l := f.label(Key{Entry: "dummy"}, 1514, 1)
	buf := make([]byte, 0, 1<<16)
	now := time.Now()
	text := []byte("2026-01-02 03:04:05 INFO a line as programs write it\twith a tab")
	if n := testing.AllocsPerRun(1000, func() { buf = f.line(buf[:0], &l, now, text) }); n != 0 {
		t.Errorf("%v allocations a line", n)
	}
}
