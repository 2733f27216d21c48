package spawn

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// tree is the main process of a child and all that descends from it. There are
// two ways to know it: by its cgroup, where it has one, and by lineage, as far
// as /proc shows that. All methods but gone are called by the walker alone.
type tree interface {
	// gone reports that certainly nothing is left after the main process was
	// reaped. It does not look far; false only means that the walker has to.
	// vacant: its cgroup is fit to be entered by another child.
	gone() (gone, vacant bool)
	// pids are its processes, in no order. Some may be zombies.
	pids() []int
	// kill sends SIGKILL to all of it.
	kill() error
	// watch opens what tells that something of it has gone, and reports the
	// events that say so; none if nothing lives. The caller closes them. It is not
	// settled where what was found ended meanwhile, and may have left something.
	watch() (fds []int, events uint32, settled bool)
	// stirred is told of such an event on a descriptor. It reports whether
	// that one is of no more use.
	stirred(fd int) bool
}

// newTree returns the tree of c, for a place as a Spec has it.
func (p *Pool) newTree(c *child) tree {
	if c.place.Cgroup != "" {
		return &cgroupTree{path: c.place.Cgroup, events: c.files.events, old: p.noCgroupKill}
	}
	return &lineageTree{p: p, c: c}
}

// maxPasses bounds how often a tree is gone through for processes that have not
// had a signal: some that fork go on to do so.
const maxPasses = 16

// signalEach signals every process of a tree, again and again until none is
// found that has not had the signal. It fails with ESRCH if there was none.
func signalEach(pids func() []int, sig int) error {
	var err error = syscall.ESRCH
	sent := make(map[int]bool)
	for range maxPasses {
		fresh := false
		withPidfds(pids, sent, func(pid, pidfd int) (kept bool) {
			sent[pid], fresh = true, true
			e := unix.PidfdSendSignal(pidfd, syscall.Signal(sig), nil, 0)
			if e == nil || err == syscall.ESRCH {
				err = e
			}
			return false
		})
		if !fresh {
			break
		}
	}
	return err
}

// chunk is how many pidfds are held at a time while a tree is gone through.
const chunk = 512

// withPidfds calls f for each living process of a tree but those to be left
// out. A pidfd is not a stranger's: its number was seen in the tree once more
// after it had been opened, so it is that process or one that is dead. It is closed
// afterwards, unless f keeps it.
func withPidfds(pids func() []int, but map[int]bool, f func(pid, pidfd int) (kept bool)) {
	var todo []int
	for _, pid := range pids() {
		if pid > 0 && !but[pid] { // 0: of another PID namespace
			todo = append(todo, pid)
		}
	}
	for len(todo) > 0 {
		n := min(len(todo), chunk)
		open := make(map[int]int, n)
		for _, pid := range todo[:n] {
			if pidfd, err := unix.PidfdOpen(pid, 0); err == nil {
				open[pid] = pidfd
			}
		}
		todo = todo[n:]
		for _, pid := range pids() {
			if pidfd, ok := open[pid]; ok && !dead(pidfd) {
				if f(pid, pidfd) {
					delete(open, pid)
				}
			}
		}
		for _, pidfd := range open {
			unix.Close(pidfd)
		}
	}
}

// order is a signal to a whole tree, to be sent by the walker.
type order struct {
	child    *child
	sig      int
	settings []Setting // to be written to its cgroup instead
}

// walk is the walker: one goroutine that looks at what is left of trees, and
// signals them, since to go through /proc or a cgroup can take long. All that
// came up meanwhile is looked at in one pass.
func (p *Pool) walk() {
	defer p.done.Done()
	for {
		orphans := false
		select {
		case <-p.stir:
		case <-p.sigchld:
			orphans = true
		}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return
		}
		orphans = orphans && p.orphaned()
		orders, dirty, unused := p.orders, p.dirty, p.unused
		p.orders, p.dirty, p.unused = nil, nil, nil
		p.walking = true
		p.mu.Unlock()

		if orphans || len(orders)+len(dirty) > 0 {
			p.pass(orders, dirty, orphans)
		}
		p.bury()
		for _, path := range unused {
			removePlace(path)
		}

		p.mu.Lock()
		p.walking = false
		p.idle.Broadcast()
		p.mu.Unlock()
	}
}

// pass does what the walker was woken for.
func (p *Pool) pass(orders []order, dirty []*child, orphans bool) {
	defer p.spend()()
	p.anew = len(orders)+len(dirty) <= few
	defer func() { p.survey = nil }()
	settled := true
	if orphans || p.anyLineage(orders, dirty) {
		settled = p.reapOrphans()
		p.step("listed")
	}
	for _, o := range orders {
		p.carryOut(o)
	}
	for _, c := range dirty {
		if !settled && c.place.Cgroup == "" {
			p.again(c)
			continue
		}
		p.examine(c)
	}
}

// few is about how many trees something may be to be done so that /proc can be read again and
// again for each: some that fork go on to do so. Otherwise it is read once for all of
// them in a pass, and who is not in that is found in the next.
const few = 8

// surveyed is a survey, nil if there can be none. It is for the walker alone.
func (p *Pool) surveyed() *Survey {
	if p.survey == nil || p.anew {
		p.survey, _ = TakeSurvey()
	}
	return p.survey
}

// again has the walker look at c in its next pass.
func (p *Pool) again(c *child) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lookAt(c)
}

func (p *Pool) anyLineage(orders []order, dirty []*child) bool {
	for _, o := range orders {
		if o.child.place.Cgroup == "" {
			return true
		}
	}
	for _, c := range dirty {
		if c.place.Cgroup == "" {
			return true
		}
	}
	return false
}

// carryOut signals a tree and says who is in it.
func (p *Pool) carryOut(o order) {
	c := o.child
	if o.settings != nil {
		p.limit(c, o.settings)
		return
	}
	// Until this is done nobody is told that the tree is empty, unless by the
	// walker, which does one thing at a time: so no other child can be in its
	// cgroup by then, and get the signal.
	p.mu.Lock()
	if p.children[c.token] != c {
		p.mu.Unlock()
		return
	}
	c.killed = c.killed || o.sig == int(unix.SIGKILL)
	p.mu.Unlock()
	members := p.members(c.tree)
	var err error
	if o.sig == int(unix.SIGKILL) {
		err = c.tree.kill()
	} else {
		err = signalEach(c.tree.pids, o.sig)
	}
	if err == syscall.ESRCH {
		err = nil // it has gone meanwhile, which is told
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c.signals--
	if p.children[c.token] != c {
		return
	}
	p.emit(Event{Kind: TreeSignaled, Token: c.token, PID: c.pid, Signal: o.sig, Members: members, SignalErr: err})
	if c.reported && len(c.watched) == 0 {
		p.lookAt(c) // could not be watched the last time
	}
}

// limit writes settings to the cgroup of a child.
func (p *Pool) limit(c *child, settings []Setting) {
	err := apply(c.place.Cgroup, settings)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil && p.children[c.token] == c {
		p.emit(Event{Kind: LimitFailed, Token: c.token, PID: c.pid, Err: err})
	}
}

// members names living processes of a tree.
func (p *Pool) members(t tree) []Member {
	var list []Member
	withPidfds(func() []int { return firstOf(t.pids(), 2*MaxMembers) }, nil, func(pid, _ int) (kept bool) {
		if len(list) < MaxMembers {
			list = append(list, Member{PID: pid, Command: comm(pid)})
		}
		return false
	})
	return list
}

func firstOf(pids []int, n int) []int { return pids[:min(len(pids), n)] }

// comm is the name of a process, "" if it is gone.
func comm(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(b), "\n")
}

// examine looks at what is left of a tree whose main process was reaped, has it
// watched, and reports what is known now.
func (p *Pool) examine(c *child) {
	fds, events, settled := c.tree.watch()
	if !settled {
		p.again(c)
		return
	}
	var members []Member
	if len(fds) > 0 {
		members = p.members(c.tree)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.children[c.token] != c { // released meanwhile
		for _, fd := range fds {
			unix.Close(fd)
		}
		return
	}
	p.unwatch(c)
	if c.pidfd >= 0 { // nothing more can be asked of the main process
		p.disarm(c.id, c.pidfd)
		unix.Close(c.pidfd)
		c.pidfd = -1
	}
	empty := len(fds) == 0
	for _, fd := range fds {
		id := p.newID()
		if p.arm(id, fd, events) != nil {
			unix.Close(fd) // the next signal to the tree looks again
			continue
		}
		if c.watched == nil {
			c.watched = make(map[uint64]int, len(fds))
		}
		c.watched[id] = fd
		p.watches[id] = c
	}
	switch {
	case !c.reported:
		p.exited(c, empty, members)
	case empty:
		p.treeEmpty(c)
	}
}
