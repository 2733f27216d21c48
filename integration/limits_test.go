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

// controllers requires that cgroups below that of the tests can have these.
func controllers(names ...string) testenv.Requirement {
	return testenv.Check("the cgroup v2 controllers "+strings.Join(names, ", "), func() string {
		own := ownCgroup()
		if own == "" {
			return "there is no cgroup v2 tree"
		}
		text, err := os.ReadFile(filepath.Join(own, "cgroup.controllers"))
		if err != nil {
			return err.Error()
		}
		for _, name := range names {
			if !slices.Contains(strings.Fields(string(text)), name) {
				return own + " has no " + name
			}
		}
		return ""
	})
}

// limited is a cgroup whose controllers a daemon in it can pass on, and what a
// file in the cgroup of a slot says.
func limited(t *testing.T, names ...string) (in cgroup, read func(slot, file string) string) {
	t.Helper()
	testenv.Need(t, testenv.Root(), testenv.Cgroup2(), controllers(names...))
	if err := os.WriteFile(filepath.Join(ownCgroup(), "cgroup.subtree_control"), []byte("+"+strings.Join(names, " +")), 0); err != nil {
		t.Skip("needs the right to enable controllers where the tests run: " + err.Error())
	}
	in = newCgroup(t)
	return in, func(slot, file string) string {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(string(in), "sentryd.*", slot, file))
		if err != nil || len(files) != 1 {
			t.Fatalf("%s of %s: %v (%v)", file, slot, files, err)
		}
		text, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
}

// TestLimits reads the limits back from the cgroup, changes them in place, takes
// them away, and has them change over a death of the daemon.
func TestLimits(t *testing.T) {
	in, read := limited(t, "cpu", "memory", "pids")
	const config = "entries: {web: {command: sleep 100000, count: 1%s}}"
	d := startDaemon(t, fmt.Sprintf(config, ", resources: {memory_max: 64MiB, memory_high: 48MiB, cpu_max: 0.5, pids_max: 20}"), options{in: in})
	before := d.identities(d.running("web", 1).entry("web"))
	check := func(want map[string]string) {
		t.Helper()
		d.await("the limits", func(*state) bool {
			for file, value := range want {
				if read("web:0", file) != value {
					return false
				}
			}
			return true
		})
	}
	check(map[string]string{"memory.max": "67108864", "memory.high": "50331648", "cpu.max": "50000 100000", "pids.max": "20"})
	d.configure(fmt.Sprintf(config, ", resources: {memory_max: 32MiB, pids_max: 30}"))
	if out := d.must("reload"); !strings.Contains(out, "update   web (resources)") {
		t.Errorf("%s", out)
	}
	check(map[string]string{"memory.max": "33554432", "memory.high": "max", "cpu.max": "max 100000", "pids.max": "30"})
	d.same(before, d.state().entry("web"))
	d.configure(fmt.Sprintf(config, ""))
	d.must("reload")
	check(map[string]string{"memory.max": "max", "pids.max": "max"})
	// What changed while no daemon lived holds for those that are adopted. A cgroup
	// that passes controllers on takes no process: the next starts where the last was.
	d.configure(fmt.Sprintf(config, ", resources: {pids_max: 40}"))
	d.die()
	leaf, err := filepath.Glob(filepath.Join(string(in), "sentryd.*", "daemon"))
	if err != nil || len(leaf) != 1 {
		t.Fatalf("the daemon was not alone in a cgroup: %v, %v", leaf, err)
	}
	d.in = cgroup(leaf[0])
	d.rise(options{})
	d.in = in
	check(map[string]string{"memory.max": "max", "pids.max": "40"})
	d.same(before, d.state().entry("web"))
	d.stop()
}

// TestOutOfMemory: a process that the kernel kills for its limit is put down to
// that.
func TestOutOfMemory(t *testing.T) {
	testenv.Need(t, testenv.Tool("python3"))
	in, _ := limited(t, "memory")
	d := startDaemon(t, `
http: {listen: 127.0.0.1:0}
entries:
  hungry: {command: [python3, -c, "x = bytearray(512 << 20)"], restart: never, resources: {memory_max: 32MiB}}
`, options{in: in})
	s := d.await("the end", func(s *state) bool { return s.entry("hungry").State == "exited" })
	x := s.process("hungry", 0).LastExit
	if x == nil || x.Signal != "SIGKILL" || !x.OOM || x.Initiator != "oom" {
		t.Errorf("%+v", x)
	}
	if text := d.get("/metrics"); !strings.Contains(text, "\nsentryd_entry_oom_kills_total{entry=\"hungry\"} 1\n") {
		t.Errorf("the metric is not 1\n%s", text)
	}
	d.stop()
}

// TestPIDsLimit: what an entry may not start fails there and nowhere else.
func TestPIDsLimit(t *testing.T) {
	in, read := limited(t, "pids")
	b := newBell(t)
	program := script(t, "i=0; while [ $i -lt 40 ]; do sleep 100000 & i=$((i+1)); done 2>/dev/null; echo > "+b.path+"; exec sleep 100000")
	d := startDaemon(t, fmt.Sprintf("entries: {many: {command: %q, delay: 1h, resources: {pids_max: 10}}, web: {command: sleep 100000, count: 20}}", program), options{in: in})
	d.running("web", 20)
	d.await("it was refused", func(*state) bool { return !strings.HasPrefix(read("many:0", "pids.events"), "max 0") })
	d.stop()
}

// TestCheckKnowsTheHost: check refuses a limit for which no daemon on this host
// can have the controller, and says what optional ones do not hold.
func TestCheckKnowsTheHost(t *testing.T) {
	const config = "entries:\n  web:\n    command: sleep 100000\n    resources: {memory_max: 64MiB%s}\n"
	have := false
	for top := ownCgroup(); top != "" && !have; {
		text, err := os.ReadFile(filepath.Join(top, "cgroup.controllers"))
		have = slices.Contains(strings.Fields(string(text)), "memory")
		if top = filepath.Dir(top); err != nil {
			break
		}
	}
	d := newDaemon(t, fmt.Sprintf(config, ""), options{})
	code, out, errs := d.ctl("check")
	if have && (code != 0 || errs != "") {
		t.Errorf("%d %s%s", code, out, errs)
	}
	if want := d.configPath() + ":5: entries.web.resources: needs the memory controller: "; !have && (code != 2 || !strings.HasPrefix(errs, want)) {
		t.Errorf("%d %s%s, want %s", code, out, errs, want)
	}
	d.configure(fmt.Sprintf(config, ", optional: true"))
	code, out, errs = d.ctl("check")
	if said := strings.HasPrefix(errs, "sentryd: No limits by the memory controller ("); code != 0 || said == have {
		t.Errorf("optional: %d %s%s", code, out, errs)
	}
}

// TestLimitsRefused: a limit that the host can not keep is a mistake, with file
// and line, unless it is optional.
func TestLimitsRefused(t *testing.T) {
	const config = "entries:\n  web:\n    command: sleep 100000\n    resources: {cpu_max: 1%s}\n"
	// No cgroup can be made here, so there is no controller.
	in := newCgroup(t)
	if in != "" {
		in.write(t, "cgroup.max.descendants", "0")
	}
	d := newDaemon(t, fmt.Sprintf(config, ""), options{in: in})
	d.start(options{})
	d.finish(2)
	if want := d.configPath() + ":5: entries.web.resources: needs the cpu controller: "; !strings.Contains(d.log.String(), want) {
		t.Errorf("no %q\n%s", want, d)
	}
	d.configure(fmt.Sprintf(config, ", optional: true"))
	d.start(options{})
	s := d.running("web", 1)
	if !slices.ContainsFunc(s.Daemon.Missing, func(m string) bool { return strings.HasPrefix(m, "No limits by the cpu controller (") }) {
		t.Errorf("missing: %q", s.Daemon.Missing)
	}
	d.configure(fmt.Sprintf(config, ""))
	if code, _, errs := d.ctl("reload"); code != 2 || !strings.Contains(errs, "needs the cpu controller") {
		t.Errorf("reload: %d %s", code, errs)
	}
	d.configure(fmt.Sprintf(config, ", optional: true"))
	d.stop()
}
