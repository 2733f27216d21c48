package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/supervisor"
	"github.com/sentryd/sentryd/pkg/view"
)

// contain settles, once, how the trees of processes are known on this host: in
// cgroups, or by lineage with the reason why not in cgroups.
func (d *daemon) contain(name, dir string) {
	d.containment, d.lacks = d.findContainment(name, dir)
}

func (d *daemon) findContainment(name, dir string) (containment string, missing []string) {
	var err error
	if d.cgroups, err = spawn.OpenCgroups(cgroupDir(name, dir)); err == nil {
		return view.Cgroup2, nil
	}
	if unix.Access("/proc/self/task", unix.F_OK) != nil {
		return view.NoContainment, []string{fmt.Sprintf("No containment: neither cgroups (%v) nor /proc can be used; a stop reaches the process group of a child, not descendants that left it.", err)}
	}
	return view.Lineage, []string{fmt.Sprintf("No cgroups (%v): a stop follows descendants by their lineage, and misses one that has cleared its environment in a session of its own.", err)}
}

// cgroupDir names the daemon's directory of cgroups: no other daemon's, whatever
// its name, since no two have one runtime directory.
func cgroupDir(name, dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	sum := sha256.Sum256([]byte(dir))
	return "sentryd." + name + "." + hex.EncodeToString(sum[:4])
}

// cgroupsOf is the supervisor's view of them, which knows no nil pointer.
func (d *daemon) cgroupsOf() supervisor.Cgroups {
	if d.cgroups == nil {
		return nil
	}
	return d.cgroups
}

// removeCgroups leaves no cgroup behind in which nothing lives.
func (d *daemon) removeCgroups() {
	if d.cgroups == nil {
		return
	}
	if left := d.cgroups.Close(); len(left) > 0 {
		d.output.Logger().Warn("processes are left running, as stop.mode has it, in cgroups below "+d.cgroups.Dir(), "cgroups", strings.Join(left, ", "))
	}
}

// sweepCgroups removes what is empty and of no slot any more: an earlier daemon
// may have ended before it could.
func (d *daemon) sweepCgroups() {
	if d.cgroups == nil {
		return
	}
	inUse := make(map[string]bool)
	for _, e := range d.sup.State().Entries {
		for _, p := range e.Processes {
			inUse[fmt.Sprintf("%s:%d", e.Name, p.Slot)] = true
		}
	}
	d.cgroups.Sweep(func(name string) bool { return inUse[name] })
}
