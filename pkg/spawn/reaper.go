package spawn

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reap is the reaper: one goroutine, one epoll set with an entry a child. It
// waits in Go's own poller (an epoll set is readable when it has events), not
// in epoll_wait(2): a thread that blocks in a system call keeps its P until the
// runtime's monitor takes it away, and whoever the reaper has just made ready,
// the one who decides on the restart, would wait for that.
func (p *Pool) reap() {
	defer p.done.Done()
	// As many exits as come at once are taken at once.
	events := make([]unix.EpollEvent, 256)
	for {
		n := 0
		err := p.waiter.Read(func(fd uintptr) bool {
			n = epollNow(int(fd), events)
			return n > 0
		})
		if err != nil {
			panic(fmt.Sprintf("spawn: wait for the epoll set: %v", err))
		}
		if !p.look(events[:n]) {
			return
		}
	}
}

// newWaiter returns a descriptor of the epoll set that Go's poller waits for.
func newWaiter(ep int) (*os.File, syscall.RawConn, error) {
	fd, err := unix.FcntlInt(uintptr(ep), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	// What makes os.NewFile hand it to the poller; epoll_wait does not care.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), "epoll")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, raw, nil
}

// epollNow returns how many events are at hand. The system call does not block,
// so the scheduler need not be told of it: that would wake the runtime's monitor
// just when there is something else to do.
func epollNow(ep int, events []unix.EpollEvent) int {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 && errno != unix.EINTR {
		// The descriptor is ours and open: a bug, not a state of the world.
		panic(fmt.Sprintf("spawn: epoll_wait: %v", errno))
	}
	if errno != 0 {
		return 0
	}
	return int(n)
}

// look deals with a batch of events and reports false if the Pool is closed.
func (p *Pool) look(events []unix.EpollEvent) bool {
	defer p.bury()
	for i := range events {
		e := &events[i]
		id := uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32
		p.mu.Lock()
		c := p.watches[id]
		switch {
		case c == nil: // of a descriptor that was closed meanwhile
		case id == c.id:
			p.collect(c)
		default:
			p.stirred(c, id)
		}
		p.mu.Unlock()
	}
	// Who decides what follows comes first.
	runtime.Gosched()
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed
}

// Look says that the process of token may have ended: a hint from elsewhere,
// the proc connector say. If it has, its exit is reported now; if it has not, or
// the token is unknown, nothing happens.
func (p *Pool) Look(token Token) {
	p.mu.Lock()
	c := p.children[token]
	if c != nil && !p.closed {
		p.collect(c)
	}
	p.mu.Unlock()
	if c == nil {
		return
	}
	// Who decides what follows comes first.
	runtime.Gosched()
	p.bury()
}

// collect reaps the main process of c if it has ended. p.mu is held.
func (p *Pool) collect(c *child) {
	if c.ended || p.frozen { // Resume looks at all of them
		return
	}
	if c.survivor {
		p.collectSurvivor(c)
		return
	}
	st, ended, errno := waitNow(c.pidfd, 0)
	switch {
	case errno == syscall.ECHILD && dead(c.pidfd):
		st = p.ended(c.pidfd) // somebody else reaped it
	case !ended:
		return // a stale hint
	}
	c.ended = true
	p.step("reaped")
	p.own.discount(&st)
	delete(p.watches, c.id) // nothing that is still reported is news
	c.exit = Event{Kind: Exited, Token: c.token, PID: c.pid, Status: st}
	c.exit.At, c.exit.Wall = p.clock.now()
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
	p.lookAt(c)
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
