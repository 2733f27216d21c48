package spawn

import (
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// A child leads its own session, and so its own process group. What is left of
// the group when the main process ends is found in /proc, and watched through
// pidfds until nothing is left.

// maxWatched is how many members of a group are watched at a time. When the
// last of them is gone the group is looked at again, so one would be right as
// well; a few make a group that ends one by one cheap.
const maxWatched = 4

// groupProbe is how process groups can be asked about.
type groupProbe struct {
	// exact: the kernel knows PIDFD_SIGNAL_PROCESS_GROUP (Linux 6.9). The group
	// is that of the process behind the pidfd then, whatever became of its number.
	exact bool
}

func newGroupProbe() groupProbe {
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return groupProbe{}
	}
	defer unix.Close(self)
	// ESRCH: we lead no group. An older kernel says EINVAL.
	err = unix.PidfdSendSignal(self, 0, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
	return groupProbe{exact: err == nil || err == unix.ESRCH}
}

// empty reports that the group led by the process of pidfd has no member, not
// even a zombie. EPERM means that there is one, of another user.
func (groupProbe) empty(pidfd int) bool {
	// Raw: it does not block, and so need not tell the scheduler.
	_, _, errno := syscall.RawSyscall6(unix.SYS_PIDFD_SEND_SIGNAL, uintptr(pidfd), 0, 0, unix.PIDFD_SIGNAL_PROCESS_GROUP, 0, 0)
	return errno == unix.ESRCH
}

// examine has the group of c looked at by watchGroups. p.mu is held.
func (p *Pool) examine(c *child) {
	if !c.queued {
		c.queued = true
		p.dirty = append(p.dirty, c)
		p.regroup.Signal()
	}
}

// watchGroups looks at groups whose leader is dead, in a goroutine of its own:
// to read /proc takes long on a host with many processes. All groups that came
// up meanwhile are looked for in one pass.
//
// Without groupProbe.exact every exit comes this way, and the leader is reaped
// only after the pass. As a zombie it keeps its number in use, so what is
// found under that number is its group and not a stranger's.
func (p *Pool) watchGroups() {
	defer p.done.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for !p.closed && len(p.dirty) == 0 {
			p.regroup.Wait()
		}
		if p.closed {
			return
		}
		groups := make(map[int]*group, len(p.dirty))
		for _, c := range p.dirty {
			c.queued = false
			if p.children[c.token] == c {
				groups[c.pid] = &group{child: c, reaped: c.reaped}
			}
		}
		p.dirty = nil
		p.mu.Unlock()
		p.find(groups)
		p.mu.Lock()
		for _, g := range groups {
			p.found(g)
		}
		p.mu.Unlock()
		p.bury()
		p.mu.Lock()
	}
}

// group is what a look at a group found.
type group struct {
	child   *child
	reaped  bool  // the leader was, before
	pids    []int // living, at most MaxMembers
	watched []member
	corpses bool // zombies of the group were seen
	reused  bool // its number belongs to a stranger by now, so it is empty
}

// maxPasses bounds how often /proc is read for a group that exists although
// nothing of it is found: its members keep replacing themselves.
const maxPasses = 16

// find looks for living members of the groups. p.mu is not held.
func (p *Pool) find(groups map[int]*group) {
	p.reserve.give()
	defer p.reserve.take()
	for range maxPasses {
		vanished := visitGroups(func(pgid int) bool { return groups[pgid] != nil }, func(pid, pgid, pidfd int) (keep bool) {
			g := groups[pgid]
			switch {
			case pid == pgid:
				// Our leader is dead. Once it was reaped its pid can only be
				// given out again after the last of its group has gone.
				g.reused = g.reaped
			case dead(pidfd):
				g.corpses = true
			default:
				if len(g.pids) < MaxMembers {
					g.pids = append(g.pids, pid)
				}
				if len(g.watched) < maxWatched {
					g.watched = append(g.watched, member{pid, pidfd})
					return true
				}
			}
			return false
		})
		again := make(map[int]*group)
		for pgid, g := range groups {
			if len(g.pids) == 0 && !g.corpses && !g.reused && p.mayHide(g, vanished) {
				again[pgid] = g
			}
		}
		if len(again) == 0 {
			return
		}
		groups = again
	}
}

func (p *Pool) mayHide(g *group, vanished bool) bool {
	if p.probe.exact {
		return !p.probe.empty(g.child.pidfd)
	}
	return vanished
}

// found takes over what find found. p.mu is held.
func (p *Pool) found(g *group) {
	c := g.child
	if p.children[c.token] != c { // released meanwhile
		for _, m := range g.watched {
			unix.Close(m.pidfd)
		}
		return
	}
	if !c.reaped {
		if st, _, errno := waitNow(c.pidfd, 0); errno == 0 {
			p.own.discount(&st)
			c.exit.Status = st
		}
		c.reaped = true
	}
	if g.reused {
		g.pids = nil
	}
	for i := range g.watched {
		m := &g.watched[i]
		id := p.newID()
		if g.reused || p.arm(id, m.pidfd) != nil {
			unix.Close(m.pidfd)
			continue
		}
		if c.members == nil {
			c.members = make(map[uint64]*member, maxWatched)
		}
		c.members[id] = m
		p.watches[id] = watch{child: c, member: m}
	}
	switch {
	case !c.reported:
		p.exited(c, g.pids)
	case len(g.pids) == 0:
		p.groupEmpty(c)
	}
}

// visitGroups calls visit for each process, zombies included, of the groups
// that want names, with a pidfd that it closes unless visit keeps it. The
// process was seen in the group after its pidfd was opened, so the pidfd is
// not a stranger's. It reports whether some process vanished while it looked.
func visitGroups(want func(pgid int) bool, visit func(pid, pgid, pidfd int) (keep bool)) (vanished bool) {
	dir, err := os.Open("/proc")
	if err != nil {
		return false
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			pid, err := strconv.Atoi(name)
			if err != nil {
				continue
			}
			pgid, err := unix.Getpgid(pid)
			if err != nil {
				vanished = true
				continue
			}
			if !want(pgid) {
				continue
			}
			pidfd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				vanished = true
				continue
			}
			if now, err := unix.Getpgid(pid); err != nil || now != pgid || !visit(pid, pgid, pidfd) {
				unix.Close(pidfd)
			}
		}
		if err != nil {
			return vanished
		}
	}
}

// reserve are descriptors that are given up while /proc is read, so that
// groups can be watched although the process has none left. Only watchGroups
// uses it while it runs.
type reserve [4]int

func (r *reserve) take() {
	for i, fd := range r {
		if fd <= 0 {
			r[i], _ = openAbove2("/dev/null", unix.O_RDONLY, 0) // if not now, then after the next look
		}
	}
}

func (r *reserve) give() {
	for i, fd := range r {
		if fd > 0 {
			unix.Close(fd)
		}
		r[i] = 0
	}
}
