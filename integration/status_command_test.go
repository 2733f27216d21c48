package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sentryd/sentryd/internal/testenv"
)

// TestStatusExitCodes are what scripts go by.
func TestStatusExitCodes(t *testing.T) {
	d := startDaemon(t, several, options{})
	d.await("everything is settled", func(s *state) bool {
		return s.entry("web").Running == 2 && s.entry("once").State == "exited" && s.entry("bad").State == "exited"
	})
	status := func(want int, names ...string) {
		t.Helper()
		if code, out, errs := d.ctl(append([]string{"status"}, names...)...); code != want {
			t.Errorf("status %v: exit code %d, want %d\n%s%s", names, code, want, out, errs)
		}
	}
	status(0) // all that is wanted is up: bad ended for good
	status(0, "web")
	status(0, "web", "once:0")
	status(3, "worker")
	status(3, "bad")
	status(3, "w*")
	status(3, "*")
	d.must("stop", "web:1")
	status(0)
	status(3, "web")
	status(0, "web:0")
	status(3, "web:1")
	d.configure(several + "  broken: {command: /nonexistent/program, delay: 60000}\n")
	if code, out, errs := d.ctl("reload"); code != 1 || !strings.Contains(errs, "broken:0: start failed: exec /nonexistent/program: no such file or directory") {
		t.Errorf("reload with what cannot start: exit code %d\n%s%s", code, out, errs)
	}
	status(3)
	status(3, "broken")
	status(0, "web:0")
	d.must("start", "web:1")
	status(0, "web")
	d.must("stop", "broken")
	status(0)
}

// TestStatusTable is what people read.
func TestStatusTable(t *testing.T) {
	d := startDaemon(t, several, options{})
	d.await("everything is settled", func(s *state) bool {
		return s.entry("web").Running == 2 && s.entry("once").State == "exited" && s.entry("bad").State == "exited"
	})
	d.must("stop", "web:1")
	want := strings.Split(`test: pid 1511, up 12s, …/test.yaml, sentryd …
NAME      STATE    PID    UPTIME  INC  NEXT  LAST EXIT
bad:0     exited   -      -       1    -     exited with code 3, 1s ago
once:0    exited   -      -       1    -     exited with code 0, 1s ago
web:0     running  21511  1s      1    -     -
web:1     stopped  -      -       1    -     ended by SIGTERM (command), 0s ago
worker:0  stopped  -      -       0    -     -`, "\n")
	if out := d.must("status"); !matches(want, strings.Split(strings.TrimSuffix(out, "\n"), "\n")) {
		t.Errorf("status prints\n%s", out)
	}
}

// TestStateIsAsDocumented: `status -o json` and GET /v1/state have every field
// of the example in doc/http.md, with values of the same kind.
func TestStateIsAsDocumented(t *testing.T) {
	page, err := os.ReadFile("../doc/http.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```json\n")
	example, _, _ := strings.Cut(rest, "```")
	var want any
	if err := json.Unmarshal([]byte(example), &want); err != nil {
		t.Fatalf("the example in doc/http.md: %v", err)
	}
	d := startDaemon(t, "entries: {dummy: {command: sh -c 'exit 3', delay: 60000}}\n", options{})
	d.await("it has ended", func(s *state) bool { return s.entry("dummy").State == "backoff" })
	_, status, _ := d.ctl("status", "-o", "json")
	for what, text := range map[string]string{"status -o json": status, "GET /v1/state": d.get("/v1/state")} {
		var got any
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%s: %v\n%s", what, err, text)
		}
		sameShape(t, what, want, got)
		sameShape(t, "doc/http.md", got, want)
	}
	one := new(entryState)
	if err := json.Unmarshal([]byte(d.get("/v1/entries/dummy")), one); err != nil || one.Name != "dummy" || len(one.Processes) != 1 {
		t.Errorf("GET /v1/entries/dummy: %v, %+v", err, one)
	}
	_, picked, _ := d.ctl("status", "-o", "json", "dummy:0")
	if s := d.decode(picked); len(s.Entries) != 1 || s.Daemon.PID != d.pid {
		t.Errorf("status -o json dummy:0:\n%s", picked)
	}
}

// sameShape checks that got has the fields of want, and values of the same kind
// in them where both have one.
func sameShape(t *testing.T, where string, want, got any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		fields, ok := got.(map[string]any)
		if !ok && got != nil {
			t.Errorf("%s is no object: %v", where, got)
		}
		for name, v := range want {
			field, there := fields[name]
			if ok && !there {
				t.Errorf("%s.%s is missing", where, name)
			}
			sameShape(t, where+"."+name, v, field)
		}
	case []any:
		list, ok := got.([]any)
		if !ok && got != nil {
			t.Errorf("%s is no list: %v", where, got)
		}
		if len(want) > 0 && len(list) > 0 {
			sameShape(t, where+"[0]", want[0], list[0])
		}
	case nil:
	default:
		if got != nil && fmt.Sprintf("%T", got) != fmt.Sprintf("%T", want) {
			t.Errorf("%s is %v, and %v in the other", where, got, want)
		}
	}
}

// TestStatusOfManySlots: a thousand slots are shown before anybody has had time
// to wonder.
func TestStatusOfManySlots(t *testing.T) {
	d := startDaemon(t, "entries: {web: {command: sleep 1000, count: 1000, autostart: false}}\n", options{})
	best := time.Hour
	for range 5 {
		began := time.Now()
		code, out, errs := d.ctl("status")
		best = min(best, time.Since(began))
		if code != 0 || strings.Count(out, "\nweb:") != 1000 {
			t.Fatalf("exit code %d\n%.2000s%s", code, out, errs)
		}
	}
	t.Logf("status of 1,000 slots: %v", best)
	if best > testenv.Slow(time.Second) {
		t.Errorf("status of 1,000 slots takes %v", best)
	}
}

// TestStatusWatch shows each change, and ends with the daemon.
func TestStatusWatch(t *testing.T) {
	d := startDaemon(t, "entries: {web: {command: sleep 1000}}\n", options{})
	d.running("web", 1)
	out := newTranscript(t, d.run)
	cmd := exec.Command(d.cli, "-c", d.configPath(), "status", "--watch")
	// Without the mark: it may outlive the daemon for a moment, and is not of it.
	cmd.Env = slices.DeleteFunc(slices.Clone(d.env), func(kv string) bool { return kv == d.mark })
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Wait()
		out.close()
	}()
	out.expect("web:0 running 1511 1s 1 - -")
	d.must("scale", "web=2")
	out.expect("web:1 running 1511 1s 1 - -")
	d.reexec()
	d.must("stop", "web:1")
	out.expect("web:1 stopped - - 1 - ended by SIGTERM (command), 0s ago")
	d.stop()
	if code := exitCodeOf(<-ended); code != 7 {
		t.Errorf("exit code %d once the daemon is gone\n%s", code, out)
	}
}
