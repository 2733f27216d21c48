package spawn

import (
	"bytes"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Orphans of children come to this process if it is a child subreaper
// (prctl(2), PR_SET_CHILD_SUBREAPER) or PID 1. They are reaped by the walker,
// each by its own pid, when SIGCHLD and a look say that there is one. What other code
// in this process starts, by os/exec say, is told from them by its session,
// which is ours: children of the Pool lead their own, so no orphan of theirs
// can be in it.

// adoptOrphans makes this process a subreaper. It lasts until it ends, through
// execve(2) too. p.mu is held.
func (p *Pool) adoptOrphans() {
	if p.subreaper {
		return
	}
	p.subreaper = true
	if os.Getpid() != 1 {
		// Since Linux 3.4, and never refused.
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	}
	self := strconv.Itoa(os.Getpid())
	if fd, err := unix.Open("/proc/"+self+"/task/"+self+"/children", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		p.listed = fd
	}
	p.unmuteSIGCHLD()
	signal.Notify(p.sigchld, unix.SIGCHLD)
}

// isSubreaper reports whether this process is one already: an earlier image of
// it may have had to be.
func isSubreaper() bool {
	var is int32
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&is)), 0, 0, 0)
	return err == nil && is != 0
}

// reapOrphans reaps the orphans that are dead, and notes whose the others are.
// It reports false if it gave up: they die faster than that, and what is noted
// may lack some. Only the walker calls it, and changes orphans.
func (p *Pool) reapOrphans() (settled bool) {
	self := os.Getpid()
	session, err := unix.Getsid(0)
	if err != nil {
		return false
	}
	for range maxPasses {
		if p.reapListed(self, session) {
			return true
		}
	}
	return false
}

// reapListed is one look at the children. It reports false if one of them ended
// meanwhile: what that one leaves has come since the list was read.
func (p *Pool) reapListed(self, session int) (settled bool) {
	// While p.mu is held no child is reaped, so that the list does not shift
	// while it is read.
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaping || p.closed {
		return true
	}
	left := make(map[int]Token)
	settled = true
	for _, pid := range childrenOf(self) {
		if p.isMain(pid) {
			continue
		}
		sid, err := unix.Getsid(pid)
		if err != nil || sid == session {
			continue
		}
		if p.fork && p.cloning() {
			// It may be a child that is about to be reported, whose pid is
			// not known yet; its end, or the next one's, comes here again.
			left[pid] = p.orphans[pid]
			continue
		}
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err == unix.ESRCH {
			continue
		}
		if err != nil { // no descriptor is left
			left[pid] = p.owner(pid, sid)
			continue
		}
		_, ended, errno := waitNow(pidfd, 0)
		unix.Close(pidfd)
		switch {
		case ended:
			settled = false
		case errno == 0:
			left[pid] = p.owner(pid, sid)
		}
	}
	p.orphans = left
	return settled
}

// mayLeave reports whether something that c left could be among our children. What is
// orphaned comes to the first thread of a subreaper that lives (find_alive_thread in
// kernel/exit.c), which is our first as long as we live; what a main process made with
// CLONE_PARENT to the thread that made that one. An execve(2) of ours leaves the first
// thread alone, with the children of all. Each of them has a list, see
// proc_tid_children(5); p.mu is held, and a main process not reaped meanwhile, so that
// the list does not shift while it is read, but for what is no orphan and shows in it.
func (p *Pool) mayLeave(c *child) bool {
	if p.fork || p.listed < 0 || p.mayHold(c, p.listed) {
		return true
	}
	if c.maker == 0 || c.maker == os.Getpid() {
		return false
	}
	fd, err := openRaw(unix.AT_FDCWD, "/proc/self/task/"+strconv.Itoa(c.maker)+"/children", unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return err != unix.ENOENT // it ended, and its children are the first thread's
	}
	defer closeRaw(fd)
	return p.mayHold(c, fd)
}

// mayHold reads a list of children. One that is longer than a few hundred it leaves to who has
// more time.
func (p *Pool) mayHold(c *child, list int) bool {
	var buf [4096]byte
	n, err := unix.Pread(list, buf[:], 0)
	if err != nil || n == len(buf) {
		return true
	}
	pid := 0
	for _, b := range buf[:n] { // each number is followed by a space
		if b >= '0' && b <= '9' {
			pid = 10*pid + int(b-'0')
			continue
		}
		if owner := p.orphans[pid]; pid > 0 && !p.isMain(pid) && (owner == 0 || owner == c.token) {
			return true
		}
		pid = 0
	}
	return false
}

// orphaned reports whether there is something for reapOrphans to reap. While a main
// process is to be reaped that is not known: who does that calls reaped. p.mu is held.
func (p *Pool) orphaned() bool {
	pid := zombie()
	return pid != 0 && (p.fork || !p.isMain(pid))
}

// reaped has the walker look for orphans that ended while the main process that was
// just reaped hid them. p.mu is held.
func (p *Pool) reaped() {
	if p.subreaper && p.orphaned() {
		select {
		case p.sigchld <- unix.SIGCHLD:
		default:
		}
	}
}

// isMain reports whether a pid is that of a child that is known, or about to
// be, and not reaped. p.mu is held.
func (p *Pool) isMain(pid int) bool {
	if c := p.mains[pid]; c != nil && !c.ended {
		return true
	}
	for _, f := range p.flights.flying {
		// The kernel wrote it before the child ran, and so before it had a
		// session of its own.
		if atomic.LoadInt32(&f.prog.pid) == int32(pid) {
			return true
		}
	}
	return false
}

// owner returns the child that an orphan, which is alive, descends from: as was
// found before, by its session or its process group, or by the environment it
// was started with. It returns 0 if none of these tells. p.mu is held.
func (p *Pool) owner(pid, sid int) Token {
	if t := p.orphans[pid]; t != 0 && p.children[t] != nil {
		return t
	}
	// The number of a session or a group is not given out as a pid again while
	// it has a member.
	if c := p.mains[sid]; c != nil {
		return c.token
	}
	if pgid, err := unix.Getpgid(pid); err == nil && p.mains[pgid] != nil {
		return p.mains[pgid].token
	}
	has := p.environOf(pid)
	for t, c := range p.children {
		if c.place.marked(has) {
			return t
		}
	}
	return 0
}

// environOf is the environment that a process was started with. One that was not
// seen before is given the time to come to the end of an execve(2).
func (p *Pool) environOf(pid int) map[string]bool {
	patience := 10 * time.Millisecond
	if _, seen := p.orphans[pid]; seen {
		patience = 0
	}
	env := readEnviron(pid, patience)
	has := make(map[string]bool)
	for kv := range bytes.SplitSeq(env, []byte{0}) {
		has[string(kv)] = true
	}
	return has
}

// marked reports whether an environment has all marks of a place.
func (pl *Place) marked(has map[string]bool) bool {
	for _, m := range pl.Marks {
		if !has[m] {
			return false
		}
	}
	return len(pl.Marks) > 0 && pl.Cgroup == ""
}

// SignalTree has sig sent to everything that lives of the tree of token, also
// after its main process has ended: SIGKILL at once (cgroup.kill, Linux 5.14),
// any other signal one by one until none is found that has not had it. It does
// not wait for that: TreeSignaled follows. It fails with an error that wraps
// syscall.ESRCH if there is no such tree any more, or not yet.
func (p *Pool) SignalTree(token Token, sig int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.children[token]
	if c == nil || p.closed {
		return signalError(sig, token, syscall.ESRCH)
	}
	if slices.ContainsFunc(p.orders, func(o order) bool { return o.child == c && o.sig == sig && o.settings == nil }) {
		return nil // it has not been carried out yet
	}
	c.signals++
	p.orders = append(p.orders, order{child: c, sig: sig})
	p.wakeWalker()
	return nil
}

func (p *Pool) wakeWalker() {
	p.handed = true
	select {
	case p.stir <- struct{}{}:
	default:
	}
}
