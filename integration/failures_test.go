package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// TestStartFailures has starts fail in every way that the file system and the
// kernel know, and mends what can be mended.
func TestStartFailures(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		replaceFile(t, path, text, mode)
		return path
	}
	const works = "#!/bin/sh\nexec sleep 100000\n"
	missing := filepath.Join(dir, "missing")
	forbidden := file("forbidden", works, 0o644)
	garbage := file("garbage", "\x00\x01\x02\x03 no program", 0o755)
	interpreter := file("interpreter", "#!"+missing+"\n", 0o755)
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	busy := filepath.Join(dir, "busy")
	copyFile(t, busy, testenv.LookTool("sleep"))
	writer, err := os.OpenFile(busy, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()

	cases := []struct {
		name, entry string // of the entry and what it says
		errno       unix.Errno
		path        string // in the error
		mend        func()
	}{
		{"noent", "command: " + missing, unix.ENOENT, missing, func() { file("missing", works, 0o755) }},
		{"nopath", "command: sentryd-has-no-such-program", unix.ENOENT, "sentryd-has-no-such-program", nil},
		{"access", "command: " + forbidden, unix.EACCES, forbidden, func() { file("forbidden", works, 0o755) }},
		{"directory", "command: [" + dir + "/]", unix.EACCES, dir, nil},
		{"noexec", "command: " + garbage, unix.ENOEXEC, garbage, func() { file("garbage", works, 0o755) }},
		{"interp", "command: " + interpreter, unix.ENOENT, missing, nil},
		{"notdir", "command: " + garbage + "/x", unix.ENOTDIR, garbage + "/x", nil},
		{"loop", "command: " + loop, unix.ELOOP, loop, nil},
		{"toobig", "command: [sleep, " + strings.Repeat("9", 140000) + "]", unix.E2BIG, "sleep", nil},
		{"txtbsy", "command: " + busy + " 100000", unix.ETXTBSY, busy, func() { writer.Close() }},
		{"nodir", "command: sleep 100000, directory: " + dir + "/absent", unix.ENOENT, dir + "/absent", func() { os.Mkdir(dir+"/absent", 0o755) }},
	}
	var config strings.Builder
	config.WriteString("defaults: {delay: 0}\nentries:\n  good: {command: sleep 100000, count: 3}\n")
	for _, c := range cases {
		fmt.Fprintf(&config, "  %s: {%s}\n", c.name, c.entry)
	}
	d := startDaemon(t, config.String(), options{})
	ids := d.identities(d.running("good", 3).entry("good"))
	s := d.await("every start has failed", func(s *state) bool {
		for _, c := range cases {
			if s.process(c.name, 0).LastExit == nil {
				return false
			}
		}
		return true
	})
	m := d.metrics()
	for _, c := range cases {
		e, p := s.entry(c.name), s.process(c.name, 0)
		x := p.LastExit
		if x.Reason != "start_failed" || x.PID != 0 || x.Code != nil || x.Signal != "" {
			t.Errorf("%s: last exit %+v", c.name, x)
		}
		for _, text := range []string{x.Error, p.Error} {
			if !strings.Contains(text, c.path) || !strings.Contains(text, c.errno.Error()) {
				t.Errorf("%s: error %q, want %q and %q in it", c.name, text, c.path, c.errno.Error())
			}
		}
		if e.Starts != 0 || e.Exits != 0 || e.State != "backoff" || p.PID != 0 || p.Incarnation == 0 {
			t.Errorf("%s: %d starts, %d exits, state %s, incarnation %d", c.name, e.Starts, e.Exits, e.State, p.Incarnation)
		}
		if p.NextStartAt == nil || p.NextStartAt.Sub(x.At) < 990*time.Millisecond || p.NextStartAt.Sub(x.At) > 64*time.Second {
			t.Errorf("%s: failed at %v, next start at %v", c.name, x.At, p.NextStartAt)
		}
		name := fmt.Sprintf(`sentryd_process_start_failures_total{entry="%s",error="%s"}`, c.name, unix.ErrnoName(c.errno))
		if m[name] < 1 {
			t.Errorf("%s is %v", name, m[name])
		}
	}
	d.out.expect("20:18:06 noent           Failed to start at 1334081886: exec …/missing: no such file or directory.")

	for _, c := range cases {
		if c.mend != nil {
			c.mend()
		}
	}
	for _, c := range cases {
		if c.mend == nil {
			continue
		}
		s := d.running(c.name, 1)
		if e := s.entry(c.name); e.Starts != 1 || e.Exits != 0 {
			t.Errorf("%s: mended, and %d starts, %d exits", c.name, e.Starts, e.Exits)
		}
	}
	d.same(ids, d.state().entry("good"))
	d.stop()
}
