package supervisor

import (
	"cmp"
	"slices"

	"github.com/sentryd/sentryd/pkg/lineage"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
	"github.com/sentryd/sentryd/pkg/view"
)

// Tree returns the processes of an entry, slot by slot: as the proc connector
// told of them, or else as they are found now in the slots' cgroups, or by their
// parents and sessions. What they run and how they are is for the caller to add.
// It never waits for the owner.
func (s *Supervisor) Tree(entry string) (*view.Tree, error) {
	if s.picture.load().Entry(entry) == nil {
		return nil, view.Errorf(view.NotFound, "no such entry: %s", entry)
	}
	t := &view.Tree{Entry: entry, Source: view.FromEvents, Slots: []view.TreeSlot{}}
	if !s.descent.isWhole() {
		t.Source = view.FromCgroups
		if s.Cgroups == nil {
			t.Source = view.FromParents
		}
	}
	for id, a := range s.descent.all() {
		if id.Entry != entry {
			continue
		}
		list, err := s.descent.tree(id, &a, t.Source)
		if err != nil {
			return nil, err
		}
		slot := view.TreeSlot{Slot: id.Slot, Incarnation: id.Incarnation, Processes: []view.TreeProcess{}}
		for _, p := range list {
			slot.Processes = append(slot.Processes, view.TreeProcess{
				PID: int(p.PID), Parent: int(p.Parent), Depth: p.Depth, Main: int(p.PID) == a.pid,
				StartedAt: s.publisher.wallAt(p.Started), Command: []string{},
			})
		}
		t.Slots = append(t.Slots, slot)
	}
	slices.SortFunc(t.Slots, func(a, b view.TreeSlot) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Incarnation, b.Incarnation))
	})
	return t, nil
}

func (d *descent) tree(id fsm.ID, a *ancestor, source string) ([]lineage.Process, error) {
	if source == view.FromEvents {
		return d.tracker.Tree(id), nil
	}
	r, err := lineage.NewReader(procfs)
	if err != nil {
		return nil, err
	}
	var procs []lineage.Proc
	if a.cgroup == "" {
		all, err := r.All()
		if err != nil {
			return nil, err
		}
		return arrange(descending(all, int32(a.pid)), int32(a.pid)), nil
	}
	pids, err := lineage.Cgroup(a.cgroup)
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		p, found, err := r.Process(pid)
		if err != nil {
			return nil, err
		}
		if found && !p.Dead() {
			procs = append(procs, p)
		}
	}
	return arrange(procs, int32(a.pid)), nil
}

// descending returns those that have main above them or are in its session.
func descending(all []lineage.Proc, main int32) []lineage.Proc {
	in := map[int32]bool{main: true}
	for more := true; more; {
		more = false
		for i := range all {
			p := &all[i]
			if !in[p.PID] && (in[p.PPID] || p.SID == main) {
				in[p.PID], more = true, true
			}
		}
	}
	return slices.DeleteFunc(all, func(p lineage.Proc) bool { return !in[p.PID] || p.Dead() })
}

// arrange puts processes below their parents: the main process and what has no
// parent among them at the top, all in the order of their start.
func arrange(procs []lineage.Proc, main int32) []lineage.Process {
	slices.SortFunc(procs, func(a, b lineage.Proc) int {
		if (a.PID == main) != (b.PID == main) {
			return int(toInt(b.PID == main) - toInt(a.PID == main))
		}
		return cmp.Or(cmp.Compare(a.Ticks, b.Ticks), cmp.Compare(a.PID, b.PID))
	})
	known := make(map[int32]bool, len(procs))
	for i := range procs {
		known[procs[i].PID] = true
	}
	below := make(map[int32][]*lineage.Proc)
	for i := range procs {
		p := &procs[i]
		if parent := p.PPID; known[parent] && p.PID != main {
			below[parent] = append(below[parent], p)
		} else {
			below[0] = append(below[0], p)
		}
	}
	out := make([]lineage.Process, 0, len(procs))
	var walk func(parent int32, depth int)
	walk = func(parent int32, depth int) {
		for _, p := range below[parent] {
			out = append(out, lineage.Process{PID: p.PID, Parent: parent, Depth: depth, Started: p.Started})
			walk(p.PID, depth+1)
		}
	}
	walk(0, 0)
	return out
}
