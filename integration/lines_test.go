package integration

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sentryd/sentryd/internal/testenv"
)

// seedConfig has one entry for each line that the daemon prints about a
// process.
const seedConfig = `
entries:
  dummy: {command: sleep 0.2, delay: 300}
  stays: {command: sleep 1000}
  three: {command: [sh, -c, "exit 3"], delay: 1h}
  killed: {command: [sh, -c, 'kill -KILL $$$$'], delay: 1h}
  nope: {command: /usr/bin/nope, delay: 1h}
  an-entry-with-a-rather-long-name: {command: [echo, hello there], delay: 1h}
`

// seedLines are those that INTERFACE.md promises, byte for byte but for times,
// pids and the runtime directory.
var seedLines = regexp.MustCompile(`^(?:` + strings.Join([]string{
	`Sentry started \(PID: \d+ saved in /run/sentryd/test/sentryd\.pid\)\.`,
	`\d\d:\d\d:\d\d \S+\.\d+ +Started at \d+\.`,
	`\d\d:\d\d:\d\d \S+\.\d+ +Exited at \d+ with ExitSuccess\.`,
	`\d\d:\d\d:\d\d three\.\d+ +Exited at \d+ with ExitFailure 3\.`,
	`\d\d:\d\d:\d\d killed\.\d+ +Exited at \d+ with signal SIGKILL\.`,
	`\d\d:\d\d:\d\d (?:dummy|stays)\.\d+ +Exited at \d+ with signal SIGTERM\.`,
	`\d\d:\d\d:\d\d nope +Failed to start at \d+: exec /usr/bin/nope: no such file or directory\.`,
	`\d\d:\d\d:\d\d an-entry-with-a-rather-long-name\.\d+ hello there`,
	`Sentry reexec'd\. Initially started at \d+ \(Previously reexec'd at \d+\)\.`,
	`Bye\.`,
}, "|") + `)$`)

var (
	stamped = regexp.MustCompile(`^(\d\d:\d\d:\d\d) (\S+) +(?:Started|Exited|Failed to start) at (\d+)`)
	column  = 25 // of the text, where the label leaves room for it
)

// TestSeedTranscript sees the lines of the seed on standard output, and
// nothing else there.
func TestSeedTranscript(t *testing.T) {
	d := startDaemon(t, seedConfig, options{})
	d.out.expect(
		"Sentry started (PID: 1511 saved in /run/sentryd/test/sentryd.pid).",
		"20:17:51 dummy.1514      Started at 1334081871.",
		"20:17:55 dummy.1514      Exited at 1334081875 with ExitSuccess.",
		"20:17:56 dummy.1516      Started at 1334081876.",
	)
	d.out.expect("20:18:03 three.1516      Exited at 1334081883 with ExitFailure 3.")
	d.out.expect("20:18:04 killed.1517     Exited at 1334081884 with signal SIGKILL.")
	d.out.expect("20:18:06 nope            Failed to start at 1334081886: exec /usr/bin/nope: no such file or directory.")
	first := d.reexec().Daemon
	d.out.expect("Sentry reexec'd. Initially started at 1334082711 (Previously reexec'd at 1334082711).",
		"20:17:56 dummy.1516      Started at 1334081876.")
	d.reexec()
	d.stop()

	pid := fmt.Sprintf("Sentry started (PID: %d ", d.pid)
	if !strings.HasPrefix(d.out.String(), pid) {
		t.Errorf("the first line does not begin with %q\n%s", pid, d)
	}
	if !strings.HasSuffix(d.out.String(), "\nBye.\n") {
		t.Errorf("the last line is not Bye.\n%s", d)
	}
	initially := fmt.Sprintf("Sentry reexec'd. Initially started at %d (Previously", first.StartedAt.Unix())
	if got := strings.Count(d.out.String(), initially); got != 2 {
		t.Errorf("%d lines with %q\n%s", got, initially, d)
	}
	for line := range strings.Lines(d.out.String()) {
		line = strings.TrimSuffix(line, "\n")
		if !seedLines.MatchString(line) {
			t.Errorf("no line of the seed: %q", line)
		}
		m := stamped.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		seconds, err := strconv.ParseInt(m[3], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if clock := time.Unix(seconds, 0).Format("15:04:05"); clock != m[1] {
			t.Errorf("%q: the time of day is %s", line, clock)
		}
		if label := line[9:column]; len(m[2]) < column-9 && label != fmt.Sprintf("%-16s", m[2]) {
			t.Errorf("%q: the label is not padded to column %d", line, column)
		}
	}
}

// TestRestartDelay holds the restart to the delay, counted from the exit, by
// the daemon's own stamps.
func TestRestartDelay(t *testing.T) {
	const delay = 400 * time.Millisecond
	d := startDaemon(t, "entries: {a: {command: sleep 0.1, delay: 400}}\n", options{})
	for n := uint64(2); n < 6; n++ {
		p := d.await("a restart", func(s *state) bool {
			p := s.process("a", 0)
			return p.Incarnation >= n && p.StartedAt != nil && p.LastExit != nil
		}).process("a", 0)
		if p.LastExit.Incarnation != p.Incarnation-1 {
			t.Errorf("incarnation %d runs, the last exit is of %d", p.Incarnation, p.LastExit.Incarnation)
		}
		after := p.StartedAt.Sub(p.LastExit.At)
		// Two readings of two clocks may differ by a tick; a busy host is late.
		if after < delay-5*time.Millisecond || after > delay+testenv.Slow(2*time.Second) {
			t.Errorf("started %v after the exit, want %v", after, delay)
		}
	}
	d.stop()
}

// TestLogFormats finds in records what people get in lines.
func TestLogFormats(t *testing.T) {
	for format, parse := range map[string]func(*testing.T, string) map[string]string{"json": parseJSON, "logfmt": parseLogfmt} {
		t.Run(format, func(t *testing.T) {
			d := startDaemon(t, seedConfig, options{args: []string{"--log.format=" + format}})
			s := d.await("all have been started", func(s *state) bool {
				return s.process("dummy", 0).Incarnation > 1 && s.process("three", 0).LastExit != nil &&
					s.process("killed", 0).LastExit != nil && s.process("nope", 0).LastExit != nil &&
					s.process("an-entry-with-a-rather-long-name", 0).LastExit != nil
			})
			d.reexec()
			d.stop()
			if text := d.log.String(); text != "" {
				t.Errorf("standard error is not empty:\n%s", text)
			}
			var records []map[string]string
			for line := range strings.Lines(d.out.String()) {
				records = append(records, parse(t, strings.TrimSuffix(line, "\n")))
			}
			pid := func(entry string) string { return strconv.Itoa(s.process(entry, 0).LastExit.PID) }
			for _, want := range []map[string]string{
				{"msg": "sentryd started", "pid": strconv.Itoa(d.pid)},
				{"msg": "started", "entry": "dummy", "slot": "0", "incarnation": "1", "pid": pid("dummy")},
				{"msg": "exited", "entry": "dummy", "incarnation": "1", "reason": "exited", "code": "0", "initiator": "process"},
				{"msg": "started", "entry": "dummy", "incarnation": "2"},
				{"msg": "exited", "entry": "three", "slot": "0", "pid": pid("three"), "reason": "exited", "code": "3"},
				{"msg": "exited", "entry": "killed", "pid": pid("killed"), "reason": "signaled", "signal": "SIGKILL"},
				{"msg": "failed to start", "entry": "nope", "error": "exec /usr/bin/nope: no such file or directory"},
				{"msg": "hello there", "entry": "an-entry-with-a-rather-long-name", "stream": "output"},
				{"msg": "sentryd re-exec'd"},
				{"msg": "exited", "entry": "stays", "reason": "signaled", "signal": "SIGTERM", "initiator": "shutdown"},
				{"msg": "ended"},
			} {
				if !contains(records, want) {
					t.Errorf("no record with %v\n%s", want, d)
				}
			}
			for _, r := range records {
				if _, err := time.Parse(time.RFC3339Nano, r["time"]); err != nil {
					t.Errorf("%v: %v", r, err)
				}
				if _, err := time.ParseDuration(r["uptime"]); r["msg"] == "exited" && err != nil {
					t.Errorf("%v: %v", r, err)
				}
			}
		})
	}
}

// contains says whether some record has all the fields of want.
func contains(records []map[string]string, want map[string]string) bool {
	for _, r := range records {
		all := true
		for k, v := range want {
			all = all && r[k] == v
		}
		if all {
			return true
		}
	}
	return false
}

func parseJSON(t *testing.T, line string) map[string]string {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(line), &fields); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	r := map[string]string{}
	for k, v := range fields {
		r[k] = fmt.Sprint(v)
		if f, ok := v.(float64); ok {
			r[k] = strconv.FormatFloat(f, 'f', -1, 64)
		}
	}
	return r
}

var logfmtField = regexp.MustCompile(`^([^ =]+)=("(?:[^"\\]|\\.)*"|[^ ]*)(?: |$)`)

func parseLogfmt(t *testing.T, line string) map[string]string {
	t.Helper()
	r := map[string]string{}
	for rest := line; rest != ""; {
		m := logfmtField.FindStringSubmatch(rest)
		if m == nil {
			t.Fatalf("%q: not logfmt from %q on", line, rest)
		}
		value := m[2]
		if unquoted, err := strconv.Unquote(value); err == nil {
			value = unquoted
		}
		r[m[1]], rest = value, rest[len(m[0]):]
	}
	return r
}
