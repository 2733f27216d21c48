package spawn

import (
	"fmt"
	"math"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Wait returns when Events has something to return that it had not before, when
// Wake is called, or was since the last Wait, or when d has passed; below 0 that is
// never. It may also return for nothing. One goroutine at a time calls it, the one that
// decides what follows from an exit: it is this thread that the kernel wakes, and on
// which the exit is taken. Nobody else takes it, unless Look is called.
//
// A Wait that ends within a millisecond anyway is not ended by a Started: nobody
// waits for that, and one wake-up does for many.
//
// A deadline is kept to the nanosecond from Linux 5.11 on (epoll_pwait2), before
// that to the millisecond.
func (p *Pool) Wait(d time.Duration) {
	p.bury()
	p.mu.Lock()
	if p.handed {
		// In the wait the thread keeps its P until the runtime's monitor takes it away:
		// whoever was made ready, a spawner say, goes first.
		p.handed = false
		p.mu.Unlock()
		runtime.Gosched()
		p.mu.Lock()
	}
	p.lookAtFlights()
	if next := p.nextLook(); next > 0 && (d < 0 || next < d) {
		d = next
	}
	if p.woken || p.closed || len(p.events) > 0 {
		d = 0
	}
	p.waiting, p.brief = d != 0, d >= 0 && d <= briefly
	p.mu.Unlock()
	n := p.epollNow()
	if n == 0 && d != 0 {
		n = p.epollWait(d)
	}
	p.mu.Lock()
	p.waiting, p.woken = false, false
	p.lookAtFlights()
	p.mu.Unlock()
	for i := range p.found[:n] {
		p.look(&p.found[i], n == 1)
	}
}

// briefly is how long a Started may wait for the end of a Wait.
const briefly = time.Millisecond

// Wake ends a Wait, the present one or the next.
func (p *Pool) Wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.woken = true
	p.kick()
}

// kick ends a Wait that is under way. p.mu is held.
func (p *Pool) kick() {
	if !p.waiting {
		return
	}
	p.waiting = false
	one := [8]byte{1} // any value but 0
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(p.wakefd), uintptr(unsafe.Pointer(&one)), uintptr(len(one)))
}

// epollNow returns how many events are at hand, at most as many as found has room
// for. The system call does not block, so the scheduler need not be told of it: that
// would wake the runtime's monitor just when there is something else to do.
func (p *Pool) epollNow() int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.ep), uintptr(unsafe.Pointer(&p.found[0])), uintptr(len(p.found)), 0, 0, 0)
	return epollResult(n, errno)
}

// epollWait waits for events, for d if that is not below 0.
func (p *Pool) epollWait(d time.Duration) int {
	var timeout *unix.Timespec
	if d >= 0 {
		ts := unix.NsecToTimespec(int64(d))
		timeout = &ts
	}
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.ep), uintptr(unsafe.Pointer(&p.found[0])), uintptr(len(p.found)), uintptr(unsafe.Pointer(timeout)), 0, 0)
	if errno != unix.ENOSYS {
		return epollResult(n, errno)
	}
	ms := -1
	if d >= 0 {
		ms = int(min((d+time.Millisecond-1)/time.Millisecond, math.MaxInt32))
	}
	n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.ep), uintptr(unsafe.Pointer(&p.found[0])), uintptr(len(p.found)), uintptr(ms), 0, 0)
	return epollResult(n, errno)
}

func epollResult(n uintptr, errno syscall.Errno) int {
	switch errno {
	case 0:
		return int(n)
	case unix.EINTR:
		return 0
	}
	// The descriptor is ours and open: a bug, not a state of the world.
	panic(fmt.Sprintf("spawn: epoll_wait: %v", errno))
}

// look deals with an event, which may be the only one.
func (p *Pool) look(e *unix.EpollEvent, only bool) {
	id := uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32
	p.mu.Lock()
	defer p.mu.Unlock()
	switch c := p.watches[id]; {
	case c == nil: // of a descriptor that was closed meanwhile, or the eventfd
	case p.closed:
	case id == c.id:
		p.collect(c, only)
	default:
		p.stirred(c, id)
	}
}

// Look says that the process of token may have ended: a hint from elsewhere,
// the proc connector say. If it has, its exit is reported now; if it has not, or
// the token is unknown, nothing happens.
func (p *Pool) Look(token Token) {
	p.mu.Lock()
	c := p.children[token]
	if c != nil && !p.closed {
		p.collect(c, false)
	}
	p.mu.Unlock()
	if c == nil {
		return
	}
	// Who decides what follows comes first.
	runtime.Gosched()
	p.bury()
}

// collect takes the end of the main process of c if it has ended, and reaps it, or with
// later leaves that to bury. p.mu is held.
func (p *Pool) collect(c *child, later bool) {
	if c.ended || p.frozen { // Resume looks at all of them
		return
	}
	if c.survivor {
		p.collectSurvivor(c)
		return
	}
	// The kernel takes as long to take a process apart as the rest of this does: bury
	// has it done when the start that follows is on its way. Where many end at once
	// that would only be more work, and one with limits would count against the next.
	flags := 0
	if later && !c.prompt && c.place.Cgroup != "" && len(c.place.Settings) == 0 && c.signals == 0 {
		flags = unix.WNOWAIT
	}
	st, ended, errno := waitNow(c.pidfd, flags)
	switch {
	case errno == syscall.ECHILD && dead(c.pidfd):
		st = p.ended(c.pidfd) // somebody else reaped it
	case !ended:
		return // a stale hint
	}
	if c.unreaped = ended && flags == unix.WNOWAIT; !c.unreaped {
		p.reaped()
	}
	if c.flight != nil && !p.fell(c) {
		return
	}
	c.ended = true
	p.step("reaped")
	p.own.discount(&st)
	delete(p.watches, c.id) // nothing that is still reported is news
	c.exit = Event{Kind: Exited, Token: c.token, PID: c.pid, Status: st}
	c.exit.At, c.exit.Wall = p.clock.Now()
	if len(c.place.Settings) > 0 {
		c.exit.OOMKills = oomKills(c.place.Cgroup) - c.ooms
	}
	gone, vacant := c.tree.gone()
	if vacant && !c.killed {
		c.vacant = c.exit.At
	}
	if gone && c.signals == 0 { // else the walker tells, after the signal
		p.exited(c, true, nil)
		return
	}
	p.reap(c)
	p.lookAt(c)
}

// reap takes c from the kernel, if that was not done yet. p.mu is held.
func (p *Pool) reap(c *child) {
	if c.unreaped {
		c.unreaped = false
		_, _, _ = waitNow(c.pidfd, 0) // its status is known
		p.reaped()
	}
}

// lookAt has the walker examine c. p.mu is held.
func (p *Pool) lookAt(c *child) {
	p.dirty = append(p.dirty, c)
	p.wakeWalker()
}

// exited reports the exit of c, and what is left of its tree. p.mu is held.
func (p *Pool) exited(c *child, empty bool, members []Member) {
	e := c.exit
	e.TreeEmpty, e.Members = empty, members
	c.exit, c.reported = Event{}, true
	if empty {
		p.retire(c)
	}
	p.emit(e)
	p.idle.Broadcast()
	if empty {
		p.forget(c)
	}
}

// retire removes the cgroup of c, which is empty, after a cgroup.kill: on Linux
// 6.18 the next child that is cloned into it is killed at once. One that is
// made anew takes children on every kernel. p.mu is held.
func (p *Pool) retire(c *child) {
	if c.killed && c.place.Cgroup != "" {
		removeCgroup(c.place.Cgroup)
	}
}

// stirred deals with an event that something of what is left of c has gone. p.mu is held.
func (p *Pool) stirred(c *child, id uint64) {
	fd := c.watched[id]
	if !c.tree.stirred(fd) {
		return
	}
	p.disarm(id, fd)
	unix.Close(fd)
	delete(c.watched, id)
	if len(c.watched) > 0 {
		return
	}
	if gone, _ := c.tree.gone(); gone && c.signals == 0 {
		p.treeEmpty(c)
		return
	}
	p.lookAt(c)
}

// treeEmpty reports that nothing is left of the tree of c. p.mu is held.
func (p *Pool) treeEmpty(c *child) {
	if p.frozen { // Resume looks at it again
		return
	}
	p.retire(c)
	p.emit(Event{Kind: TreeEmpty, Token: c.token, PID: c.pid, TreeEmpty: true})
	p.forget(c)
}
