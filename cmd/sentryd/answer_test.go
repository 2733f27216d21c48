package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sentryd/sentryd/internal/testenv"
	"github.com/sentryd/sentryd/pkg/view"
)

// TestSilentDaemon: every command gives up on a daemon that takes connections and says
// nothing, and says so in one line.
func TestSilentDaemon(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "web"), 0o711); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "web", controlSocket))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("SENTRYD_RUNTIME_DIR", dir)
	t.Setenv("SENTRYD_SOCKET", "")
	for _, test := range []struct{ line, limit string }{
		{"start web --timeout 60ms", "60ms"}, {"stop web --timeout 60ms", "60ms"}, {"stop web --no-wait --timeout 60ms", "60ms"},
		{"restart web --timeout 60ms", "60ms"}, {"scale web=2 --timeout 60ms", "60ms"},
		{"stop --timeout 60ms", "60ms"}, {"stop --keep --timeout 60ms", "60ms"}, {"reload --timeout 60ms", "60ms"},
		{"status", "40ms"}, {"status --watch", "40ms"}, {"status -o json web", "40ms"}, {"diff", "40ms"}, {"signal HUP web", "40ms"},
		{"tree", "40ms"}, {"events", "40ms"}, {"events -f web", "40ms"},
	} {
		var out, errs bytes.Buffer
		c := &cli{stdout: &out, stderr: &errs, answerTimeout: 40 * time.Millisecond}
		want := fmt.Sprintf("sentryd: the daemon (PID %d) does not answer within %s\n", os.Getpid(), test.limit)
		if code := inTime(t, c, test.line); code != exitFailed || out.String() != "" || errs.String() != want {
			t.Errorf("%s: exit code %d, printed %q and %q, want %q", test.line, code, out.String(), errs.String(), want)
		}
	}
	c := &cli{stdout: new(bytes.Buffer), stderr: new(bytes.Buffer), answerTimeout: 40 * time.Millisecond}
	if code := inTime(t, c, "__complete stop w"); code != exitDone {
		t.Errorf("a completion: exit code %d", code)
	}
}

// inTime runs a command line that has to come to its end by itself.
func inTime(t *testing.T, c *cli, line string) int {
	t.Helper()
	done := make(chan int)
	go func() { done <- c.run(append([]string{"-c", "web"}, strings.Fields(line)...)) }()
	select {
	case code := <-done:
		return code
	case <-time.After(testenv.Slow(20 * time.Second)):
		t.Fatalf("%s: goes on for ever", line)
		return -1
	}
}

// TestFallsSilent: a daemon that takes a command and says no more, and one that is silent
// in the midst of several.
func TestFallsSilent(t *testing.T) {
	const unheard = "sentryd: the daemon took the command; nothing was heard of its effect within 80ms\n"
	unanswered := fmt.Sprintf("the daemon (PID %d) does not answer within 80ms\n", os.Getpid())
	for _, test := range []struct {
		line  string
		takes int // commands before it is silent
		want  string
	}{
		{"stop web --timeout 80ms", 1, unheard},
		{"stop --timeout 80ms", 1, unheard},
		{"reload --timeout 80ms", 1, unheard},
		{"stop --timeout 80ms", 0, "sentryd: " + unanswered},
		{"reload --timeout 80ms", 0, "sentryd: " + unanswered},
		{"scale web=2 --timeout 80ms", 0, "sentryd: web: " + unanswered},
		{"stop web api cron --timeout 80ms", 0, "sentryd: web: " + unanswered},
		{"stop web api cron --timeout 80ms", 1, "sentryd: api: " + unanswered + unheard},
	} {
		d := newFakeDaemon(t, entry("api", view.Running), entry("cron", view.Running), entry("web", view.Running))
		d.diff = &view.Diff{}
		silent := make(chan struct{})
		d.command = func(d *fakeDaemon, _ string) {
			d.silent = silent
			if len(d.calls) > test.takes {
				d.mu.Unlock()
				<-silent
				d.mu.Lock()
			}
		}
		var out, errs bytes.Buffer
		code := inTime(t, &cli{stdout: &out, stderr: &errs}, test.line)
		close(silent)
		if code != exitFailed || out.String() != "" || errs.String() != test.want {
			t.Errorf("%s, %d taken: exit code %d, printed %q and %q, want %q", test.line, test.takes, code, out.String(), errs.String(), test.want)
		}
	}
}
