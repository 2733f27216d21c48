package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// procLimit returns the soft and the hard limit of a line of /proc/PID/limits.
func procLimit(t *testing.T, pid int, name string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.Join(strings.Fields(rest)[:2], "/")
		}
	}
	t.Fatalf("no limit %q", name)
	return ""
}

// procStat returns what proc_pid_stat(5) says of a process, from its state on.
func procStat(t *testing.T, pid int) []string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return strings.Fields(rest)
}

// procNice returns the nice value of a process.
func procNice(t *testing.T, pid int) string { return procStat(t, pid)[16] }

func procOOM(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// TestIdentityAndLimits reads every key back from a living process, before a
// re-exec and after, and looks at one that asks for nothing beside it.
func TestIdentityAndLimits(t *testing.T) {
	who := nobody(t)
	const config = `
entries:
  all:
    command: [sh, -c, 'echo by name > /dev/stdout && echo said; exec sleep 100000']
    directory: /
    user: nobody
    group: 54322
    groups: [54324, 54323]
    umask: "027"
    nice: 3
    oom_score_adj: 200
    cpu_affinity: [0]
    rlimits: {nofile: {soft: 100, hard: 200}, core: 0, fsize: 64MiB}
    capabilities: [NET_BIND_SERVICE]
    no_new_privileges: true
    environment: {HOME: /wrong, USER: wrong, KEPT: "yes"}
  user: {command: sleep 100000, user: nobody}
  none: {command: sleep 100000, capabilities: []}
  plain: {command: sleep 100000}
`
	d := startDaemon(t, config, options{})
	fifoOwner := func(entry string) uint32 {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(d.runtimeFile(filepath.Join("log", entry+":0.output")), &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode&0o7777 != 0o600 {
			t.Errorf("FIFO of %s: mode %o", entry, st.Mode&0o7777)
		}
		return st.Uid
	}
	asleep := func(pid int) { // in execve it has the name before it has an environment
		t.Helper()
		eventually(t, "the shell has become sleep", func() error {
			if name, env := procStatus(t, pid, "Name"), environ(pid); name != "sleep" || env == "" {
				return fmt.Errorf("it is %s, with %d bytes of environment", name, len(env))
			}
			return nil
		})
	}
	const empty = "0000000000000000"
	bounding := procStatus(t, d.pid, "CapBnd")
	check := func() {
		t.Helper()
		pid := d.running("all", 1).process("all", 0).PID
		uid := fmt.Sprintf("%d\t%[1]d\t%[1]d\t%[1]d", who.Uid)
		asleep(pid)
		for key, want := range map[string]string{
			"Uid": uid, "Gid": "54322\t54322\t54322\t54322", "Groups": "54323 54324", "Umask": "0027", "NoNewPrivs": "1", "Cpus_allowed_list": "0",
			"CapInh": "0000000000000400", "CapPrm": "0000000000000400", "CapEff": "0000000000000400", "CapBnd": "0000000000000400", "CapAmb": "0000000000000400",
			"SigBlk": empty, "SigIgn": empty, "SigCgt": empty,
		} {
			if got := procStatus(t, pid, key); got != want {
				t.Errorf("%s is %q, want %q", key, got, want)
			}
		}
		for name, want := range map[string]string{"Max open files": "100/200", "Max core file size": "0/0", "Max file size": "67108864/67108864"} {
			if got := procLimit(t, pid, name); got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
		if nice, oom := procNice(t, pid), procOOM(t, pid); nice != "3" || oom != "200" {
			t.Errorf("nice %s, oom_score_adj %s", nice, oom)
		}
		if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd != "/" {
			t.Errorf("directory %s: %v", cwd, err)
		}
		env := strings.Split(environ(pid), "\n")
		for _, want := range []string{"USER=nobody", "LOGNAME=nobody", "KEPT=yes"} {
			if !slices.Contains(env, want) {
				t.Errorf("no %s in the environment", want)
			}
		}
		for _, name := range []string{"HOME", "USER", "SHELL"} {
			n := 0
			for _, kv := range env {
				if strings.HasPrefix(kv, name+"=") {
					n++
				}
			}
			if n != 1 || slices.Contains(env, "HOME=/wrong") || slices.Contains(env, "HOME="+d.dir) {
				t.Errorf("%s: %d times in the environment, or not the user's", name, n)
			}
		}
		if fifoOwner("all") != who.Uid || fifoOwner("plain") != 0 {
			t.Errorf("FIFOs belong to %d and %d", fifoOwner("all"), fifoOwner("plain"))
		}
		user, none, plain := d.state().process("user", 0).PID, d.state().process("none", 0).PID, d.state().process("plain", 0).PID
		for _, c := range []struct {
			pid             int
			key, want, name string
		}{
			{user, "Uid", uid, "user"}, {user, "CapPrm", empty, "user"}, {user, "CapBnd", bounding, "user"}, {user, "CapAmb", empty, "user"},
			{none, "CapInh", empty, "none"}, {none, "CapPrm", empty, "none"}, {none, "CapEff", empty, "none"}, {none, "CapBnd", empty, "none"}, {none, "CapAmb", empty, "none"},
		} {
			if got := procStatus(t, c.pid, c.key); got != c.want {
				t.Errorf("%s: %s is %q, want %q", c.name, c.key, got, c.want)
			}
		}
		for _, key := range []string{"Uid", "Gid", "Groups", "Umask", "NoNewPrivs", "Cpus_allowed_list", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
			if got, want := procStatus(t, plain, key), procStatus(t, d.pid, key); got != want {
				t.Errorf("plain: %s is %q, want %q", key, got, want)
			}
		}
		if got, want := procNice(t, plain), procNice(t, d.pid); got != want {
			t.Errorf("plain: nice %s, want %s", got, want)
		}
	}
	for _, name := range []string{"user", "none", "plain"} {
		d.running(name, 1)
	}
	check()
	d.out.until("what was written to /dev/stdout", func() bool {
		return strings.Contains(d.out.printed(), "by name") && strings.Contains(d.out.printed(), "said")
	})
	d.reexec()
	check()

	// Another user: a new process, with a FIFO that it can open as well.
	d.configure(strings.ReplaceAll(strings.Replace(config, "user: nobody\n    group", "user: 54321\n    group", 1), "by name", "renamed"))
	if got, want := d.must("reload"), "restart  all (command, user)\n"; got != want {
		t.Errorf("reload says %q, want %q", got, want)
	}
	d.out.until("what was written by the new user", func() bool { return strings.Contains(d.out.printed(), "renamed") })
	pid := d.running("all", 1).process("all", 0).PID
	if got := procStatus(t, pid, "Uid"); !strings.HasPrefix(got, "54321\t") || fifoOwner("all") != 54321 {
		t.Errorf("uid %s, FIFO of %d", got, fifoOwner("all"))
	}
	asleep(pid)
	if env := environ(pid); !strings.Contains(env, "HOME=/wrong") || strings.Contains(env, "LOGNAME=nobody") {
		t.Errorf("of a user without an account:\n%s", env)
	}
	d.stop()
}

// TestNoProtectionForChildren: a daemon that is spared by the OOM killer
// spares nobody else.
func TestNoProtectionForChildren(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.SysResource())
	start := script(t, fmt.Sprintf("echo -900 > /proc/self/oom_score_adj\nexec %s \"$@\"\n", docsBinary(t)))
	d := startDaemon(t, "entries:\n  a: {command: sleep 100000}\n  b: {command: sleep 100000, oom_score_adj: -100}\n", options{bin: start})
	for name, want := range map[string]string{"a": "0", "b": "-100"} {
		if got := procOOM(t, d.running(name, 1).process(name, 0).PID); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if got := procOOM(t, d.pid); got != "-900" {
		t.Errorf("the daemon's is %s", got)
	}
	d.stop()
}

// TestRefusedToAPlainUser: what a plain user may not is said by `check`, and
// what cannot be known there when it is tried.
func TestRefusedToAPlainUser(t *testing.T) {
	o := plainUser(t)
	d := startDaemon(t, `
entries:
  spared: {command: sleep 100000, oom_score_adj: -1000}
  mild: {command: sleep 100000, nice: 5, umask: "077", rlimits: {core: 0}, no_new_privileges: true, cpu_affinity: [0]}
`, o)
	s := d.await("spared cannot start", func(s *state) bool { return s.process("spared", 0).LastExit != nil })
	if x := s.process("spared", 0); x.LastExit.Reason != "start_failed" || !strings.Contains(x.Error, "oom_score_adj -1000: permission denied") {
		t.Errorf("spared: %+v, error %q", x.LastExit, x.Error)
	}
	pid := d.running("mild", 1).process("mild", 0).PID
	if nice, umask, core := procNice(t, pid), procStatus(t, pid, "Umask"), procLimit(t, pid, "Max core file size"); nice != "5" || umask != "0077" || core != "0/0" {
		t.Errorf("mild: nice %s, umask %s, core %s", nice, umask, core)
	}
	for _, c := range []struct{ keys, want string }{
		{"user: root", `entries.a.user: "root" is not the user that sentryd runs as`},
		{"user: 0", `entries.a.user: "0" is not the user that sentryd runs as`},
		{"user: 4242", `entries.a.user: user 4242 is not in /etc/passwd: its group must be given as well`},
		{"group: 0", "entries.a.group: group 0 is not that of sentryd"},
		{"groups: [0]", "entries.a.groups: cannot be set: only root"},
		{"nice: -20", "entries.a.nice: -20 is below 0: only root"},
		{"rlimits: {nofile: 1000000000}", "entries.a.rlimits.nofile: 1000000000 is above"},
		{"capabilities: []", "entries.a.capabilities: the bounding set cannot be reduced: only root"},
		{"capabilities: [NET_RAW]", "entries.a.capabilities[0]: sentryd itself does not have NET_RAW"},
		{"cpu_affinity: [1023]", "entries.a.cpu_affinity[0]: there is no CPU 1023 here"},
	} {
		path := filepath.Join(d.dir, "refused.yaml")
		replaceFile(t, path, "entries:\n  a: {command: sleep 1, "+c.keys+"}\n", 0o644)
		if code, out := d.runAs(o.as, d.bin, "check", "-c", path); code != 2 || !strings.Contains(out, "refused.yaml:2: "+c.want) {
			t.Errorf("%s: exit code %d\n%s", c.keys, code, out)
		}
	}
	d.stop()
}

// TestDescriptorsOfAThousand looks at the descriptors of 1,000 children while
// others are started all the time: each has its own three, and nothing of the
// daemon's nor of another child's.
func TestDescriptorsOfAThousand(t *testing.T) {
	const n = 1000
	d := startDaemon(t, fmt.Sprintf(`
entries:
  many: {command: sleep 100000, count: %d, autostart: false}
  storm: {command: "true", count: 16, delay: 0}
`, n), options{})
	d.must("start", "--no-wait", "many")
	seen := make(map[string]bool)
	odd := make(map[string]string) // the program itself opens files while it begins; what it was given, it keeps
	look := func(s *state) {
		for _, p := range s.entry("many").Processes {
			if p.PID == 0 {
				continue
			}
			dir := fmt.Sprintf("/proc/%d/fd/", p.PID)
			names, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			fifo := d.runtimeFile(filepath.Join("log", fmt.Sprintf("many:%d.output", p.Slot)))
			want := map[string]string{"0": "/dev/null", "1": fifo, "2": fifo}
			for _, name := range names {
				target, err := os.Readlink(dir + name.Name())
				if os.IsNotExist(err) {
					continue // the dynamic loader's, of a moment
				}
				if want[name.Name()] == target {
					seen[fmt.Sprintf("%d/%s", p.Slot, name.Name())] = true
				} else {
					odd[dir+name.Name()] = target
				}
			}
		}
	}
	for running := 0; running < n; {
		s := d.await("more are running", func(s *state) bool { return s.entry("many").Running > running || s.entry("many").Running == n })
		running = s.entry("many").Running
		look(s)
	}
	s := d.state()
	starts := s.entry("storm").Starts
	look(s)
	if now := d.await("the storm goes on", func(s *state) bool { return s.entry("storm").Starts > starts }); now.entry("many").Exits != 0 {
		t.Errorf("%d of many have ended", now.entry("many").Exits)
	}
	for path, target := range odd {
		eventually(t, "the program has closed what it opened", func() error {
			if now, err := os.Readlink(path); !os.IsNotExist(err) {
				return fmt.Errorf("%s is %s, and was %s (%v)", path, now, target, err)
			}
			return nil
		})
	}
	if len(seen) != 3*n {
		t.Errorf("%d descriptors of %d seen", len(seen), 3*n)
	}
	d.stop()
}
