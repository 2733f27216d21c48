package supervisor

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
)

// Cgroups is what the supervisor needs of the directory in which each slot has
// a cgroup.
type Cgroups interface {
	Dir() string
	Path(name string) string
}

// place is where an incarnation is started: in the cgroup of its slot, kept from
// one to the next, or with what it can be recognised by where there is none.
func (s *Supervisor) place(id fsm.ID) spawn.Place {
	if s.Cgroups == nil {
		return spawn.Place{Marks: marks(id), Output: outputOf(s.outputs, id)}
	}
	return spawn.Place{
		Cgroup:   s.Cgroups.Path(cgroupName(id.Entry, id.Slot)),
		Settings: s.launchers[id.Entry].limits,
	}
}

func cgroupName(entry string, slot int) string { return entry + ":" + strconv.Itoa(slot) }

// marks are what nobody but an incarnation's own descendants has in the
// environment: no other children of this daemon, and only those are looked at.
func marks(id fsm.ID) []string {
	return []string{
		"SENTRYD_ENTRY=" + id.Entry, "SENTRYD_SLOT=" + strconv.Itoa(id.Slot),
		"SENTRYD_INCARNATION=" + strconv.FormatUint(id.Incarnation, 10),
	}
}

// outputOf is what the paths of the FIFOs of a slot begin with, in their directory, which is
// as the kernel names it.
func outputOf(dir string, id fsm.ID) string {
	return filepath.Join(dir, cgroupName(id.Entry, id.Slot)+".")
}

// nameOf is the path of an open directory, proc_pid_fd(5).
func nameOf(dir int) string {
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(dir))
	if err != nil {
		return ""
	}
	return path
}

// savePlaces notes in a saved state which cgroup each slot's processes are in:
// the one of the slot, another that Place made, or none.
func (s *Supervisor) savePlaces(d *state.Daemon) {
	children := s.Processes.Children()
	in := make(map[fsm.ID]string, len(children))
	for _, c := range children {
		if known := s.children[c.Token]; known != nil && c.Place.Cgroup != "" {
			in[known.id] = c.Place.Cgroup
		}
	}
	for i := range d.Machine.Entries {
		e := &d.Machine.Entries[i]
		for j := range e.Slots {
			slot := &e.Slots[j]
			id := fsm.ID{Entry: e.Name, Slot: slot.Slot, Incarnation: slot.Incarnation}
			slot.Survivor = s.adopted(id)
			cgroup, ok := in[id]
			if !ok {
				continue
			}
			// All of them are in one directory, but for a daemon that was moved.
			dir, name := splitCgroup(cgroup)
			if d.Cgroups == "" {
				d.Cgroups = dir
			}
			if slot.Cgroup = cgroup; dir == d.Cgroups {
				slot.Cgroup = name
			}
		}
	}
}

// splitCgroup is filepath.Split for a path that is clean, without the slash.
func splitCgroup(path string) (dir, name string) {
	at := strings.LastIndexByte(path, '/')
	return path[:max(0, at)], path[at+1:]
}

// savedPlace is the inverse of savePlaces, for one slot.
func (s *Supervisor) savedPlace(d *state.Daemon, id fsm.ID, slot *state.Slot) spawn.Place {
	switch {
	case slot.Cgroup == "":
		return spawn.Place{Marks: marks(id), Output: outputOf(s.outputs, id)}
	case filepath.IsAbs(slot.Cgroup):
		return spawn.Place{Cgroup: slot.Cgroup}
	}
	return spawn.Place{Cgroup: d.Cgroups + "/" + slot.Cgroup}
}

// adopted reports whether the process of an incarnation was started by a daemon
// that died since.
func (s *Supervisor) adopted(id fsm.ID) bool {
	c := s.children[s.tokens[id]]
	return c != nil && c.survivor
}
