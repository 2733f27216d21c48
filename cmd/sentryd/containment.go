package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/supervisor"
	"github.com/sentryd/sentryd/pkg/view"
)

// containment is how the trees of processes are known on this host.
type containment struct {
	kind        string   // view.Cgroup2, view.Lineage or view.NoContainment
	controllers []string // that limit what is in the cgroups
	lacking     []string // what this host cannot do, in sentences
}

// contain settles, once, how trees are known: in cgroups, or by lineage with the
// reason why not in cgroups.
func (d *daemon) contain(name, dir string) {
	var err error
	d.kind = view.Cgroup2
	if d.cgroups, err = spawn.OpenCgroups(cgroupDir(name, dir)); err != nil {
		d.kind = view.Lineage
		text := fmt.Sprintf("No cgroups (%v): a stop follows descendants by their lineage, and misses one that has cleared its environment in a session of its own.", err)
		if unix.Access("/proc/self/task", unix.F_OK) != nil {
			d.kind = view.NoContainment
			text = fmt.Sprintf("No containment: neither cgroups (%v) nor /proc can be used; a stop reaches the process group of a child, not descendants that left it.", err)
		}
		d.lacking = append(d.lacking, text)
	}
}

// restrain enables what the limits of a configuration need. It fails if there are
// some that cannot be had and have to be; a daemon that has processes already goes on without them.
func (d *daemon) restrain(cfg *config.Config) error {
	missing, err := limits(cfg, d.enable)
	d.lacking = append(d.lacking, missing...)
	if d.cgroups != nil {
		// Those of an earlier configuration, too: its limits are to be lifted.
		d.controllers = d.cgroups.Controllers()
	}
	if err != nil {
		d.lacking = append(d.lacking, "Limits do not hold: "+err.Error())
		if d.cgroups != nil {
			os.Remove(d.cgroups.Dir()) // if it is empty
		}
	}
	return err
}

// limits makes sure of the controllers that a configuration's limits need. It
// returns sentences about those that are not there and need not be; an error, as
// of a configuration that is wrong, if one has to be.
func limits(cfg *config.Config, lacking func(controllers []string) map[string]error) (missing []string, err error) {
	var need []string
	for _, e := range cfg.Entries {
		need = append(need, e.Resources.Controllers()...)
	}
	slices.Sort(need)
	need = slices.Compact(need)
	lacks := lacking(need)
	var wrong config.Errors
	for _, e := range cfg.Entries {
		for _, c := range e.Resources.Controllers() {
			switch {
			case lacks[c] == nil:
			case e.Resources.Optional:
				missing = append(missing, fmt.Sprintf("No limits by the %s controller (%v): those of %s do not hold.", c, lacks[c], e.Name))
			default:
				wrong = append(wrong, config.Error{
					File: e.Resources.File, Line: e.Resources.Line,
					Message: fmt.Sprintf("entries.%s.resources: needs the %s controller: %v; with optional: true it goes without", e.Name, c, lacks[c]),
				})
			}
		}
	}
	if len(wrong) > 0 {
		return nil, wrong
	}
	return missing, nil
}

// enable makes controllers work, and lacks says without doing so which can not;
// both return these.
func (d *daemon) enable(controllers []string) map[string]error {
	if d.cgroups == nil {
		return withoutCgroups(controllers)
	}
	if len(controllers) > 0 {
		// To be made a pool needs a child for a moment, which would be in the
		// daemon's cgroup while that must have no other process.
		<-d.pooled
	}
	return d.cgroups.EnableControllers(controllers)
}

func (d *daemon) withheld(controllers []string) map[string]error {
	if d.cgroups == nil {
		return withoutCgroups(controllers)
	}
	return d.cgroups.Lacks(controllers)
}

func withoutCgroups(controllers []string) map[string]error {
	lacks := make(map[string]error)
	for _, c := range controllers {
		lacks[c] = errors.New("there are no cgroups")
	}
	return lacks
}

// reloadable loads the configuration anew, and refuses limits that can not be had.
func (d *daemon) reloadable(path string) (*config.Config, error) {
	cfg, err := config.Load(path, loadOptions())
	if err == nil {
		_, err = limits(cfg, d.withheld)
	}
	if err != nil {
		return nil, err
	}
	return cfg, nil
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
	inUse := sync.OnceValue(func() map[string]bool { // there is hardly ever anything to sweep
		names := make(map[string]bool)
		for _, e := range d.sup.State().Entries {
			for _, p := range e.Processes {
				names[fmt.Sprintf("%s:%d", e.Name, p.Slot)] = true
			}
		}
		return names
	})
	d.cgroups.Sweep(func(name string) bool { return inUse()[name] })
}

// newLiftLimitsCommand is what the unit for systemd runs when the daemon has ended,
// in whatever way.
func newLiftLimitsCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "lift-limits", Hidden: true, Args: cobra.NoArgs,
		Short: "Have the cgroups of a dead daemon's service limit nothing, so that systemd can start it again",
		RunE:  c.do(func(*cobra.Command, []string) error { return spawn.LiftControllers() }),
	}
}
