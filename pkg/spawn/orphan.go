package spawn

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An orphan is a process that this one did not make, or whose end another reaps:
// a child of an earlier process of this program, which died. Its pidfd becomes
// readable as a child's does, but nobody here can wait for it.

// unreapedAfter is how long a dead orphan may be left unreaped by its new parent
// before its status is given up, where only the reap would make it known.
const unreapedAfter = 5 * time.Second

// AdoptOrphan is [Pool.Adopt] for a process that may be nobody's child here, one
// opened by [Identity.Open] say. If it is a child all the same it is treated as
// one. One that is dead already is reported like any other; with ended its
// exit was reported before, and only the end of its group is awaited.
//
// Its Exited comes as soon as its status is known, or nobody can know it any
// more: see [ExitStatus]. It has Status.Known == false then, and the caller may
// have heard of the status elsewhere, by the proc connector for example. Before Linux
// 6.15 that is so for all that are reaped before the zombie could be looked at.
func (p *Pool) AdoptOrphan(token Token, pid, pidfd int, ended bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	if p.children[token] != nil {
		return fmt.Errorf("adopt process %d: token %d is in use", pid, token)
	}
	if _, err := unix.FcntlInt(uintptr(pidfd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return fmt.Errorf("adopt process %d: set close-on-exec: %w", pid, err)
	}
	_, _, errno := waitNow(pidfd, unix.WNOWAIT)
	if errno != 0 && errno != syscall.ECHILD {
		return fmt.Errorf("adopt process %d: %w", pid, errno)
	}
	c, err := p.add(token, pid, pidfd)
	if err != nil {
		return fmt.Errorf("adopt process %d: watch it: %w", pid, err)
	}
	c.orphan = errno == syscall.ECHILD
	if ended && dead(pidfd) {
		p.disarm(c.id, pidfd)
		c.ended, c.reported = true, true
		c.reaped = p.reapedOrphan(c)
		p.examine(c)
	}
	return nil
}

// collectOrphan reports the exit of an orphan if it has ended. p.mu is held.
//
// The pidfd is readable when it is dead, and again when it was reaped.
func (p *Pool) collectOrphan(c *child) {
	if !dead(c.pidfd) {
		return
	}
	st := p.ended(c.pidfd)
	if !st.Known && p.probe.exact && !hungUp(c.pidfd) && !c.givenUp {
		if c.exit.At == 0 {
			c.exit.At, c.exit.Wall = p.clock.now()
			time.AfterFunc(unreapedAfter, func() { p.giveUp(c) })
		}
		return // the reap will tell
	}
	at, wall := c.exit.At, c.exit.Wall
	if at == 0 {
		at, wall = p.clock.now()
	}
	c.ended = true
	p.disarm(c.id, c.pidfd)
	c.exit = Event{Kind: Exited, Token: c.token, PID: c.pid, Status: st, At: at, Wall: wall}
	if p.probe.exact && p.probe.empty(c.pidfd) {
		c.reaped = true
		p.exited(c, nil)
		return
	}
	p.examine(c)
}

// giveUp reports an orphan that stays a zombie without a status.
func (p *Pool) giveUp(c *child) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.givenUp = true; p.children[c.token] == c && !p.closed {
		p.collect(c)
	}
}

// reapedOrphan reports whether a dead orphan is to be taken for reaped: whether
// its pid may be another's. Where the kernel does not tell (before 6.9) it is,
// so that no signal goes to a stranger's group.
func (p *Pool) reapedOrphan(c *child) bool { return !p.probe.exact || hungUp(c.pidfd) }

// hungUp reports whether the process of pidfd was reaped. Since Linux 6.9;
// before it is always false.
func hungUp(pidfd int) bool {
	fds := [1]unix.PollFd{{Fd: int32(pidfd)}}
	n, err := unix.Poll(fds[:], 0)
	return err == nil && n > 0 && fds[0].Revents&unix.POLLHUP != 0
}
