package spawn

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Adopt watches processes that an earlier image of this program started, as
// Children listed them before execve(2): the Exited of each, and what follows, is
// reported as if it had been started here. Of one that is Reaped, what is left
// of its tree is watched, and TreeEmpty follows; no PidFD is needed for it.
// Otherwise a PidFD below 0 has one opened by the pid. A PidFD belongs to the
// Pool from here on, and becomes close-on-exec.
//
// The errors are those of the children at the same places. Where there is one
// the PidFD stays the caller's. A process that is not a child of this one is
// refused with an error that wraps syscall.ECHILD, unless it is given as a
// Survivor.
//
// Orphans are reaped from the first Adopt or Start on, since what is not known
// by then is one. So Adopt is called once, with all there are, before Start.
func (p *Pool) Adopt(list []Child) []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.expect(len(p.children) + len(list))
	}
	errs := make([]error, len(list))
	for i := range list {
		errs[i] = p.adopt(list[i])
	}
	p.reaping = true
	return errs
}

func (p *Pool) adopt(o Child) (err error) {
	if p.closed {
		return ErrClosed
	}
	if p.children[o.Token] != nil {
		return fmt.Errorf("adopt process %d: token %d is in use", o.PID, o.Token)
	}
	if o.Place.Cgroup == "" {
		p.adoptOrphans()
	}
	if o.Reaped {
		if o.PidFD >= 0 {
			unix.Close(o.PidFD)
		}
		c, err := p.add(o.Token, o.PID, -1, o.Place, noFiles())
		if err != nil {
			return err
		}
		c.ended, c.reported, c.survivor = true, true, o.Survivor
		p.lookAt(c)
		return nil
	}
	if o.PidFD < 0 {
		if o.PidFD, err = unix.PidfdOpen(o.PID, 0); err != nil {
			return fmt.Errorf("adopt process %d: open pidfd: %w", o.PID, err)
		}
		defer func() {
			if err != nil {
				unix.Close(o.PidFD)
			}
		}()
	}
	_, _, errno := waitNow(o.PidFD, unix.WNOWAIT)
	if errno != 0 && (errno != syscall.ECHILD || !o.Survivor && !dead(o.PidFD)) {
		return fmt.Errorf("adopt process %d: %w", o.PID, errno)
	}
	if _, err := unix.FcntlInt(uintptr(o.PidFD), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return fmt.Errorf("adopt process %d: set close-on-exec: %w", o.PID, err)
	}
	c, err := p.add(o.Token, o.PID, o.PidFD, o.Place, noFiles())
	if err != nil {
		return fmt.Errorf("adopt process %d: watch it: %w", o.PID, err)
	}
	if len(o.Place.Settings) > 0 {
		c.ooms = oomKills(o.Place.Cgroup)
	}
	c.survivor = o.Survivor && errno == syscall.ECHILD
	return nil
}
