package spawn

import (
	"time"

	"golang.org/x/sys/unix"
)

// A survivor is a process that this one did not make, or whose end another reaps:
// a child of an earlier process of this program, which died. Its pidfd becomes
// readable as a child's does, but nobody here can wait for it.
//
// Its Exited comes as soon as its status is known, or nobody can know it any
// more: see ExitStatus. It has Status.Known == false then, and the caller may
// have heard of the status elsewhere, by the proc connector for example: see
// Untold. Before Linux 6.15 that is so for all that are reaped before the zombie
// could be looked at.

// unreapedAfter is how long a dead survivor may be left unreaped by its new parent
// before its status is given up, where only the reap would make it known.
const unreapedAfter = 5 * time.Second

// collectSurvivor reports the exit of a survivor if it has ended. p.mu is held.
//
// The pidfd is readable when it is dead, and again when it was reaped.
func (p *Pool) collectSurvivor(c *child) {
	if !dead(c.pidfd) {
		return
	}
	st := p.ended(c.pidfd)
	if !st.Known && p.exact && !hungUp(c.pidfd) && !c.givenUp {
		if c.exit.At == 0 {
			c.exit.At, c.exit.Wall = p.clock.Now()
			time.AfterFunc(unreapedAfter, func() { p.giveUp(c) })
		}
		return // the reap will tell
	}
	at, wall := c.exit.At, c.exit.Wall
	if at == 0 {
		at, wall = p.clock.Now()
	}
	c.ended = true
	p.disarm(c.id, c.pidfd)
	c.exit = Event{Kind: Exited, Token: c.token, PID: c.pid, Status: st, At: at, Wall: wall}
	if gone, _ := c.tree.gone(); gone && c.signals == 0 {
		p.exited(c, true, nil)
		return
	}
	p.lookAt(c)
}

// giveUp reports a survivor that stays a zombie without a status.
func (p *Pool) giveUp(c *child) {
	defer p.bury()
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.givenUp = true; p.children[c.token] == c && !p.closed {
		p.collect(c, false)
	}
}

// hungUp reports whether the process of pidfd was reaped. Since Linux 6.9;
// before it is always false.
func hungUp(pidfd int) bool {
	fds := [1]unix.PollFd{{Fd: int32(pidfd)}}
	n, err := unix.Poll(fds[:], 0)
	return err == nil && n > 0 && fds[0].Revents&unix.POLLHUP != 0
}
