package supervisor

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/lineage"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
	"github.com/sentryd/sentryd/pkg/view"
)

// A main process that exits may have left a successor: nginx after SIGUSR2, a
// Go server that uses tableflip. It is a descendant that runs the same program.
// It is nobody's child that can be waited for, or has become ours as an
// orphan; pkg/spawn watches either as a survivor.

// heir is a successor that the machine was told of.
type heir struct {
	exited fsm.Exited // what happens if it cannot be taken over
	pidfd  int
}

// findSuccessor adds a successor to the exit of a main process, if the entry is
// for that and there is one. What is found is let go again by dropHeirs.
func (s *Supervisor) findSuccessor(c *child, ev *fsm.Exited, members []spawn.Member) {
	if ev.TreeEmpty || ev.Status.Reason != fsm.ReasonExited || ev.Status.Code != 0 {
		return
	}
	if e := s.configured(c.id.Entry); e == nil || !e.Handover {
		return
	}
	exe := s.descent.runs(c.id)
	if exe == "" { // it was gone before anybody could look
		exe = s.executable(c.id)
	}
	pids := make([]int32, 0, len(members))
	for _, m := range members {
		pids = append(pids, int32(m.PID))
	}
	if s.Cgroups != nil {
		// All of them, however many.
		if all, err := lineage.Cgroup(s.place(c.id).Cgroup); err == nil && len(all) > 0 {
			pids = all
		}
	}
	if pid, pidfd := successor(pids, exe); pid != 0 {
		ev.Successor = pid
		h := &heir{exited: *ev, pidfd: pidfd}
		h.exited.Successor = 0
		s.heirs[c.id] = h
	}
}

// executable returns the path of what an incarnation was started as, "" if that is
// not known.
func (s *Supervisor) executable(id fsm.ID) string {
	l := s.launchers[id.Entry]
	if l == nil {
		return ""
	}
	start, err := l.template.Start(id.Slot, id.Incarnation)
	if err != nil {
		return ""
	}
	if strings.Contains(start.Program, "/") {
		return resolved(filepath.Join(start.Directory, start.Program), start.Program)
	}
	for _, v := range start.Env {
		dirs, ok := strings.CutPrefix(v, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(dirs) {
			file := filepath.Join(dir, start.Program)
			if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
				return resolved(file, file)
			}
		}
	}
	return ""
}

// resolved returns a path as /proc shows it; absolute goes before relative.
func resolved(relative, absolute string) string {
	path := relative
	if filepath.IsAbs(absolute) {
		path = absolute
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	return path
}

// successor returns which of the processes runs that program and has no such
// process as its parent, the oldest of several, and its pidfd; or 0.
func successor(pids []int32, exe string) (pid, pidfd int) {
	if exe == "" {
		return 0, -1
	}
	r, err := lineage.NewReader(procfs)
	if err != nil {
		return 0, -1
	}
	type candidate struct {
		lineage.Proc
		pidfd int
	}
	var same []candidate
	for _, p := range pids {
		fd, err := unix.PidfdOpen(int(p), 0)
		if err != nil {
			continue // it has ended
		}
		at, found, err := r.Process(p)
		if err != nil || !found || at.Dead() || program(int(p)) != exe {
			unix.Close(fd)
			continue
		}
		same = append(same, candidate{at, fd})
	}
	slices.SortFunc(same, func(a, b candidate) int { return cmp.Compare(a.Ticks, b.Ticks) })
	best := slices.IndexFunc(same, func(c candidate) bool {
		return !slices.ContainsFunc(same, func(d candidate) bool { return d.PID == c.PPID })
	})
	for i, c := range same {
		if i != best {
			unix.Close(c.pidfd)
		}
	}
	if best < 0 {
		return 0, -1
	}
	return int(same[best].PID), same[best].pidfd
}

// takeOverFrom makes the successor the process of its incarnation.
func (s *Supervisor) takeOverFrom(a fsm.HandedOver) {
	old, h := s.children[s.tokens[a.ID]], s.heirs[a.ID]
	s.lastToken++
	c := &child{id: a.ID, token: s.lastToken, pid: a.PID, startedAt: h.exited.At, cgroup: old.cgroup, survivor: old.survivor}
	s.identify(c, h.pidfd)
	err := s.Processes.Adopt([]spawn.Child{{Token: c.token, PID: a.PID, PidFD: h.pidfd, Survivor: true, Place: s.place(a.ID)}})[0]
	if err != nil {
		s.Log.Error("a process could not be taken over", "entry", a.ID.Entry, "slot", a.ID.Slot,
			"incarnation", a.ID.Incarnation, "pid", a.PID, "error", err)
		s.counts.failure("adopt")
		s.local = append(s.local, h.exited)
		return
	}
	delete(s.heirs, a.ID) // the descriptor is not ours any more
	s.Processes.Release(old.token)
	s.untie(old.token)
	s.children[c.token], s.tokens[c.id] = c, c.token
	s.begin(c)
	s.scribe.started = append(s.scribe.started, c)
	s.writeDown()
	s.Witness.track(c.pid, c.token, c.startedAt)
	s.attendAll()
	s.descent.handOver(c.id, c.pid, c.startedAt)
	s.tellHappenings() // what came before
	s.happened(view.EventHandedOver, a.ID, s.Clock.Wall(), func(e *view.Event) { e.PID = a.PID })
	s.printBegin(a.ID, a.PID, a.Wall, "Took over at %d.", "took over")
}

// dropHeirs lets go of successors that were not taken over.
func (s *Supervisor) dropHeirs() {
	for id, h := range s.heirs {
		unix.Close(h.pidfd)
		delete(s.heirs, id)
	}
}
