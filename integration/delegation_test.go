package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// delegate hands a cgroup over as systemd does with Delegate=yes, to the user of
// o: what such a one may write to, and the mark that it is delegated. With
// subgroup the daemon starts in a cgroup below it (DelegateSubgroup=daemon).
func delegate(t *testing.T, in cgroup, o options, subgroup bool) options {
	t.Helper()
	if err := unix.Setxattr(string(in), "user.delegate", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	o.in = in
	dirs := []string{string(in)}
	if subgroup {
		o.in = cgroup(filepath.Join(string(in), "daemon"))
		if err := os.Mkdir(string(o.in), 0o755); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, string(o.in))
	}
	for _, dir := range dirs {
		o.chown(t, dir)
		for _, file := range []string{"cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
			o.chown(t, filepath.Join(dir, file))
		}
	}
	return o
}

// liftLimits runs what the unit runs when its main process has died, as systemd
// does.
func (d *daemon) liftLimits(service cgroup, o options) {
	d.t.Helper()
	control := filepath.Join(string(service), ".control")
	if err := os.Mkdir(control, 0o755); err != nil {
		d.t.Fatal(err)
	}
	dir, err := os.Open(control)
	if err != nil {
		d.t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command(d.cli, "lift-limits")
	cmd.Env = d.env
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Credential: o.as}
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("lift-limits: %v: %s", err, out)
	}
	if err := os.Remove(control); err != nil {
		d.t.Fatal(err)
	}
}

// TestDelegated runs the daemon as a service of systemd's, as root and as a plain
// user: limits hold, and what is left of a dead daemon is adopted by the next.
func TestDelegated(t *testing.T) {
	for name, c := range map[string]struct{ plain, subgroup bool }{
		"root": {}, "root in a subgroup": {subgroup: true},
		"plain": {plain: true}, "plain in a subgroup": {plain: true, subgroup: true},
	} {
		t.Run(name, func(t *testing.T) {
			in, read := limited(t, "cpu", "memory", "pids")
			var o options
			if c.plain {
				o = plainUser(t)
			}
			o = delegate(t, in, o, c.subgroup)
			d := startDaemon(t, `
entries:
  web: {command: sleep 100000, count: 2, resources: {memory_max: 64MiB, cpu_max: 0.5, pids_max: 20}}
  hungry: {command: dd if=/dev/zero of=/dev/null bs=256M count=1, restart: never, resources: {memory_max: 32MiB}}
`, o)
			s := d.running("web", 2)
			if s.Daemon.Containment != "cgroup2" {
				t.Errorf("containment %s: %q", s.Daemon.Containment, s.Daemon.Missing)
			}
			for file, want := range map[string]string{"memory.max": "67108864", "cpu.max": "50000 100000", "pids.max": "20"} {
				if got := read("web:1", file); got != want {
					t.Errorf("%s is %s", file, got)
				}
			}
			s = d.await("the end", func(s *state) bool { return s.entry("hungry").State == "exited" })
			if x := s.process("hungry", 0).LastExit; x == nil || !x.OOM {
				t.Errorf("%+v", x)
			}
			ids := d.identities(s.entry("web"))
			d.same(ids, d.reexec().entry("web"))
			d.die()
			d.liftLimits(in, o)
			// systemd can put the next main process there: either the controllers are
			// enabled above it, or they have been lifted.
			s, _ = d.rise(o)
			d.same(ids, s.entry("web"))
			for file, want := range map[string]string{"memory.max": "67108864", "cpu.max": "50000 100000", "pids.max": "20"} {
				d.await("after an adoption "+file+" is "+want, func(*state) bool { return read("web:1", file) == want })
			}
			d.stop()
			for _, dir := range in.dirs() {
				if dir != "daemon" {
					t.Errorf("the cgroup %s is left", dir)
				}
			}
		})
	}
}
