package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sentryd/sentryd/internal/testenv"
)

// TestReload changes every kind of thing in a configuration at once, and sees
// that each entry gets what it is due and no more.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	vars := filepath.Join(dir, "vars")
	config := func(r *strings.Replacer) string {
		return r.Replace(`
defaults: {command: sleep 100000, stop: {timeout: 5s}}
entries:
  keep: {count: 2}
  grow: {count: <1>}
  shrink: {count: <3>}
  rolling: {command: sleep <100001>, count: 3}
  environment: {environment: {COLOUR: "<red>"}}
  file: {env_file: ` + vars + `}
  patient: {delay: <1000>}
  both: {count: <2>, directory: <"/">}
  <gone>: {count: 2}
`)
	}
	before := strings.NewReplacer("<", "", ">", "")
	after := strings.NewReplacer("<1>", "3", "<3>", "1", "<100001>", "100002", "<red>", "blue", "<1000>", "50",
		"<2>", "1", `<"/">`, `"/tmp"`, "<gone>", "fresh")
	replaceFile(t, vars, "COLOUR=red\n", 0o644)
	d := startDaemon(t, config(before), options{dir: dir, args: []string{"--log.format=json"}})
	all := []string{"keep", "grow", "shrink", "rolling", "environment", "file", "patient", "both", "gone"}
	s := d.await("all run", func(s *state) bool {
		return !slices.ContainsFunc(all, func(name string) bool { e := s.entry(name); return e.Count == 0 || e.Running != e.Count })
	})
	ids := map[string]map[int]string{}
	for _, name := range all {
		ids[name] = d.identities(s.entry(name))
	}
	gone := d.open(s.entry("gone").pids())

	replaceFile(t, vars, "COLOUR=blue\n", 0o644)
	d.configure(config(after))
	if diff := d.must("diff"); !strings.Contains(diff, "restart  rolling (command)\n") || !strings.Contains(diff, "keep     keep\n") {
		t.Errorf("sentryd diff prints\n%s", diff)
	}
	d.same(ids["rolling"], d.state().entry("rolling"))
	lines, _, _ := d.out.state()
	if got, want := d.must("reload"), `restart  both (count, directory)
restart  environment (environment)
restart  file (env_file)
add      fresh
remove   gone
scale    grow (1 to 3)
update   patient (delay)
restart  rolling (command)
scale    shrink (3 to 1)
`; got != want {
		t.Errorf("sentryd reload printed\n%s\nwant\n%s", got, want)
	}

	s = d.state() // reload has waited for all of it
	d.same(ids["keep"], s.entry("keep"))
	d.same(ids["patient"], s.entry("patient"))
	if e := s.entry("patient"); e.DelayMS != 50 {
		t.Errorf("patient: delay_ms %d", e.DelayMS)
	}
	grown, shrunk := d.identities(s.entry("grow")), d.identities(s.entry("shrink"))
	if len(grown) != 3 || grown[0] != ids["grow"][0] {
		t.Errorf("grow: %v, was %v", grown, ids["grow"])
	}
	if len(shrunk) != 1 || shrunk[0] != ids["shrink"][0] {
		t.Errorf("shrink: %v, was %v", shrunk, ids["shrink"])
	}
	for name, count := range map[string]int{"rolling": 3, "environment": 1, "file": 1, "both": 1} {
		now := d.identities(s.entry(name))
		if len(now) != count {
			t.Errorf("%s: %d processes, want %d", name, len(now), count)
		}
		for slot, id := range now {
			if id == ids[name][slot] {
				t.Errorf("%s:%d: still %s", name, slot, id)
			}
			if x := s.process(name, slot).LastExit; x == nil || x.Initiator != "reload" {
				t.Errorf("%s:%d: last exit %+v", name, slot, x)
			}
		}
	}
	for _, name := range []string{"environment", "file"} {
		if pid := s.process(name, 0).PID; !hasMark(pid, "COLOUR=blue") {
			t.Errorf("%s: COLOUR is not blue", name)
		}
	}
	if e := s.entry("rolling"); !slices.Equal(e.Command, []string{"sleep", "100002"}) {
		t.Errorf("rolling: command %v", e.Command)
	}
	for _, p := range gone {
		if hasMark(p.pid, d.mark) {
			t.Errorf("gone: %d is there", p.pid)
		}
	}
	if e := s.entry("gone"); e.Name != "" {
		t.Errorf("gone is not: %+v", e)
	}
	if e := s.entry("fresh"); e.Running != 2 {
		t.Errorf("fresh: %d run", e.Running)
	}

	// Rolling: one slot at a time, so ends and starts take turns.
	var turns []string
	now, _, _ := d.out.state()
	for _, line := range now[len(lines):] {
		if r := parseJSON(t, line); r["entry"] == "rolling" {
			turns = append(turns, r["msg"])
		}
	}
	if want := strings.Fields("exited started exited started exited started"); !slices.Equal(turns, want) {
		t.Errorf("rolling: %v, want %v", turns, want)
	}
	d.stop()
}

// TestWhatLasts holds what was set by commands against reloads and re-execs.
func TestWhatLasts(t *testing.T) {
	config := `
defaults: {command: sleep 100000}
entries:
  scaled: {count: 2, delay: 1000}
  stopped: {count: 2}
  once: {command: "true", restart: never}
  lazy: {autostart: false}
`
	d := startDaemon(t, config, options{})
	d.must("scale", "scaled=4")
	d.must("stop", "stopped")
	d.await("once has ended", func(s *state) bool { return s.entry("once").State == "exited" })
	ids := d.identities(d.state().entry("scaled"))

	check := func(when string, scaled int) {
		t.Helper()
		s := d.settled("scaled")
		if e := s.entry("scaled"); e.Count != scaled || e.Running != scaled {
			t.Errorf("%s: scaled has %d slots, %d run, want %d", when, e.Count, e.Running, scaled)
		}
		if e := s.entry("stopped"); e.State != "stopped" || e.Running != 0 {
			t.Errorf("%s: stopped is %s, %d run", when, e.State, e.Running)
		}
		if e := s.entry("once"); e.State != "exited" || e.Starts != 1 {
			t.Errorf("%s: once is %s after %d starts", when, e.State, e.Starts)
		}
		if e := s.entry("lazy"); e.State != "stopped" || e.Starts != 0 {
			t.Errorf("%s: lazy is %s after %d starts", when, e.State, e.Starts)
		}
	}
	d.reexec()
	check("after a SIGHUP", 4)
	d.must("reload")
	check("after a reload", 4)
	d.configure(strings.ReplaceAll(config, "delay: 1000", "delay: 900"))
	d.must("reload")
	check("after a reload with another delay", 4)
	d.same(ids, d.state().entry("scaled"))
	d.configure(strings.ReplaceAll(config, "count: 2, delay: 1000", "count: 3, delay: 900"))
	d.must("reload")
	check("after a reload with another count", 3)
	d.configure(strings.ReplaceAll(config, "stopped: {count: 2}", "stopped: {count: 2, command: sleep 100001}"))
	d.must("reload")
	check("after a reload with another command", 2)
	d.must("scale", "stopped=3")
	check("after a scale", 2)
	d.must("start", "stopped")
	if e := d.state().entry("stopped"); e.Running != 3 {
		t.Errorf("stopped: %d run after start", e.Running)
	}
	d.stop()
}

// copyFile copies a program.
func copyFile(t *testing.T, to, from string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	replaceFile(t, to, string(data), 0o755)
}

// TestRefusedReload breaks the configuration or the program in every way, and
// sees the daemon go on, say why, and take the next good one.
func TestRefusedReload(t *testing.T) {
	const config = "entries: {a: {command: sleep 100000, count: 2}}\n"
	dir := t.TempDir()
	bin := filepath.Join(dir, "sentryd-copy")
	good := docsBinary(t)
	copyFile(t, bin, good)
	d := startDaemon(t, config, options{dir: dir, bin: bin})
	ids := d.identities(d.running("a", 2).entry("a"))
	program, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}

	unknown := func() {
		d.configure("control: {users: [no-such-user]}\nentries: {a: {command: sleep 1, count: -1}}\n")
	}

	for _, c := range []struct {
		name string
		do   func()
		want string // in the reason
	}{
		{"unknown key", func() { d.configure("entries: {a: {command: sleep 1, dleay: 3}}\n") }, ".yaml:2: "},
		{"not YAML", func() { d.configure("entries: {a: [\n") }, ".yaml:"},
		{"two mistakes", func() { d.configure("entries:\n  a: {command: sleep 1, count: -1}\n  b: {count: 1}\n") }, ".yaml:4: "},
		{"nobody of that name", unknown, ".yaml:2: control.users[0]: there is no user"},
		{"a mistake beside that", unknown, ".yaml:3: entries.a.count: "},
		{"empty", func() { replaceFile(t, d.configPath(), "", 0o644) }, ".yaml"},
		{"missing", func() { os.Remove(d.configPath()) }, "no such file"},
		{"a directory", func() { os.Remove(d.configPath()); os.Mkdir(d.configPath(), 0o755) }, "is a directory"},
		{"no program", func() { os.Remove(bin) }, "no such file"},
		{"truncated program", func() { replaceFile(t, bin, string(program[:100000]), 0o755) }, bin},
		{"empty program", func() { replaceFile(t, bin, "", 0o755) }, bin},
		{"program not executable", func() { replaceFile(t, bin, string(program), 0o644) }, "permission denied"},
		{"program fails", func() { replaceFile(t, bin, "#!/bin/sh\necho cannot >&2\nexit 3\n", 0o755) }, "cannot"},
		{"program is another", func() { replaceFile(t, bin, "#!/bin/sh\necho fine\n", 0o755) }, bin},
		{"program is killed", func() { replaceFile(t, bin, "#!/bin/sh\nkill -KILL $$\n", 0o755) }, bin},
	} {
		t.Run(c.name, func(t *testing.T) {
			d.t = t
			defer func() {
				os.Remove(d.configPath()) // when it is a directory
				d.configure(config)
				copyFile(t, bin, good)
			}()
			c.do()
			before := d.state()
			code, out, errs := d.ctl("reload")
			if code != 2 || out != "" || !strings.Contains(errs, c.want) {
				t.Errorf("reload: exit code %d, standard output %q, standard error %q; want code 2 and %q", code, out, errs, c.want)
			}
			s := d.state()
			if s.Daemon.LastReload.OK || !strings.Contains(s.Daemon.LastReload.Error, c.want) {
				t.Errorf("last_reload: %+v", s.Daemon.LastReload)
			}
			if s.Daemon.Reexecs != before.Daemon.Reexecs || s.Daemon.PID != d.pid {
				t.Errorf("pid %d, %d re-execs, were %d", s.Daemon.PID, s.Daemon.Reexecs, before.Daemon.Reexecs)
			}
			if m := d.metrics(); m["sentryd_config_last_reload_successful"] != 0 {
				t.Errorf("config_last_reload_successful is %v", m["sentryd_config_last_reload_successful"])
			}
			// The same by a signal: the log says why.
			said := func() int { return strings.Count(d.log.String(), "reload refused, going on as before") }
			n := said()
			d.signal(1)
			d.log.until("a refusal in the log", func() bool { return said() > n })
			d.same(ids, d.state().entry("a"))
		})
		d.t = t
		if out := d.must("reload"); out != "nothing changed\n" {
			t.Errorf("after %s: reload prints %q", c.name, out)
		}
		s := d.state()
		if !s.Daemon.LastReload.OK {
			t.Errorf("after %s: last_reload %+v", c.name, s.Daemon.LastReload)
		}
		d.same(ids, s.entry("a"))
	}
	m := d.metrics()
	if m["sentryd_config_last_reload_successful"] != 1 || m[`sentryd_reexecs_total{result="failed"}`] == 0 {
		t.Errorf("config_last_reload_successful %v, failed re-execs %v", m["sentryd_config_last_reload_successful"], m[`sentryd_reexecs_total{result="failed"}`])
	}
	d.stop()
}

// TestUpgrade puts a newer program in the place of the running one.
func TestUpgrade(t *testing.T) {
	testenv.Need(t, testenv.Tool("go"))
	dir := t.TempDir()
	newer, bin := t.TempDir()+"/sentryd", filepath.Join(dir, "sentryd-copy")
	copyFile(t, bin, docsBinary(t))
	buildSentryd(t, newer, "-X main.version=v99.1.2")
	d := startDaemon(t, "entries: {a: {command: sleep 100000, count: 2}}\n", options{dir: dir, bin: bin})
	s := d.running("a", 2)
	ids := d.identities(s.entry("a"))
	copyFile(t, bin, newer)
	d.must("reload")
	now := d.state()
	if now.Daemon.Version != "v99.1.2" || now.Daemon.Version == s.Daemon.Version {
		t.Errorf("version %q, was %q", now.Daemon.Version, s.Daemon.Version)
	}
	d.same(ids, now.entry("a"))
	if name := fmt.Sprintf(`version="%s"`, now.Daemon.Version); !strings.Contains(d.get("/metrics"), name) {
		t.Errorf("no %s in the metrics", name)
	}
	d.stop()
}
