package spawn

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Adopt watches a process that an earlier image of this program started, as
// Children listed it before execve(2): its Exited, and what follows, is
// reported as if it had been started here. A pidfd below 0 has one opened by
// the pid. The pidfd belongs to the Pool from here on, and becomes
// close-on-exec; if Adopt fails it stays the caller's. A process that is not a
// child of this one is refused with an error that wraps syscall.ECHILD: see
// AdoptOrphan.
func (p *Pool) Adopt(token Token, pid, pidfd int) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	if p.children[token] != nil {
		return fmt.Errorf("adopt process %d: token %d is in use", pid, token)
	}
	if pidfd < 0 {
		if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			return fmt.Errorf("adopt process %d: open pidfd: %w", pid, err)
		}
		defer func() {
			if err != nil {
				unix.Close(pidfd)
			}
		}()
	}
	_, _, errno := waitNow(pidfd, unix.WNOWAIT)
	reaped := errno == syscall.ECHILD && dead(pidfd)
	if errno != 0 && !reaped {
		return fmt.Errorf("adopt process %d: %w", pid, errno)
	}
	if _, err := unix.FcntlInt(uintptr(pidfd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return fmt.Errorf("adopt process %d: set close-on-exec: %w", pid, err)
	}
	c, err := p.add(token, pid, pidfd)
	if err != nil {
		return fmt.Errorf("adopt process %d: watch it: %w", pid, err)
	}
	if reaped {
		// Its exit was reported by the earlier image; its group was not gone.
		p.disarm(c.id, pidfd)
		c.ended, c.reaped, c.reported = true, true, true
		p.examine(c)
	}
	return nil
}
