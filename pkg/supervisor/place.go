package supervisor

import (
	"path/filepath"
	"strconv"

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
// one to the next, and with what it can be recognised by where there is none.
func (s *Supervisor) place(id fsm.ID) spawn.Place {
	if s.Cgroups == nil {
		return spawn.Place{Marks: marks(id)}
	}
	return spawn.Place{Cgroup: s.Cgroups.Path(cgroupName(id.Entry, id.Slot)), Settings: s.launchers[id.Entry].limits}
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

// savePlaces notes in a saved state which cgroup each slot's processes are in:
// the one of the slot, another that Place made, or none.
func (s *Supervisor) savePlaces(d *state.Daemon) {
	in := make(map[fsm.ID]string)
	for _, c := range s.Processes.Children() {
		if known := s.children[c.Token]; known != nil && c.Place.Cgroup != "" {
			in[known.id] = c.Place.Cgroup
		}
	}
	for i := range d.Machine.Entries {
		e := &d.Machine.Entries[i]
		for j := range e.Slots {
			slot := &e.Slots[j]
			slot.Survivor = s.adopted(fsm.ID{Entry: e.Name, Slot: slot.Slot, Incarnation: slot.Incarnation})
			cgroup, ok := in[fsm.ID{Entry: e.Name, Slot: slot.Slot, Incarnation: slot.Incarnation}]
			if !ok {
				continue
			}
			// All of them are in one directory, but for a daemon that was moved.
			if d.Cgroups == "" {
				d.Cgroups = filepath.Dir(cgroup)
			}
			slot.Cgroup = cgroup
			if filepath.Dir(cgroup) == d.Cgroups {
				slot.Cgroup = filepath.Base(cgroup)
			}
		}
	}
}

// savedPlace is the inverse of savePlaces, for one slot.
func savedPlace(d *state.Daemon, id fsm.ID, slot *state.Slot) spawn.Place {
	p := spawn.Place{Cgroup: slot.Cgroup, Marks: marks(id)}
	if p.Cgroup != "" && !filepath.IsAbs(p.Cgroup) {
		p.Cgroup = d.Cgroups + "/" + p.Cgroup
	}
	return p
}

// adopted reports whether the process of an incarnation was started by a daemon
// that died since.
func (s *Supervisor) adopted(id fsm.ID) bool {
	c := s.children[s.tokens[id]]
	return c != nil && c.survivor
}
