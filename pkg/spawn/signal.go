package spawn

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Signal sends sig to the main process of token, by its pidfd. It fails with
// an error that wraps syscall.ESRCH if there is no such process any more, or
// not yet.
func (p *Pool) Signal(token Token, sig int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.children[token]
	if c == nil {
		return signalError(sig, token, syscall.ESRCH)
	}
	return signalError(sig, token, unix.PidfdSendSignal(c.pidfd, syscall.Signal(sig), nil, 0))
}

// SignalGroup sends sig to every process in the group that the main process of
// token leads or led, also after the main process has ended. It fails with an
// error that wraps syscall.ESRCH if there is none.
func (p *Pool) SignalGroup(token Token, sig int) error {
	p.mu.Lock()
	c := p.children[token]
	if c == nil {
		p.mu.Unlock()
		return signalError(sig, token, syscall.ESRCH)
	}
	if p.probe.exact {
		defer p.mu.Unlock()
		return signalError(sig, token, unix.PidfdSendSignal(c.pidfd, syscall.Signal(sig), nil, unix.PIDFD_SIGNAL_PROCESS_GROUP))
	}
	p.mu.Unlock()
	return signalError(sig, token, p.signalMembers(c, sig))
}

func signalError(sig int, token Token, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("send signal %d to child %d: %w", sig, token, err)
}

// signalMembers signals the members of a group one by one, until there is none
// that did not get it, as a kernel before 6.9 wants it.
func (p *Pool) signalMembers(c *child, sig int) error {
	var err error = syscall.ESRCH
	sent := make(map[int]bool)
	for range maxPasses {
		p.mu.Lock()
		ours, reaped := p.children[c.token] == c, c.reaped
		p.mu.Unlock()
		var found []member
		visitGroups(func(pgid int) bool { return pgid == c.pid }, func(pid, pgid, pidfd int) (keep bool) {
			if reaped && pid == pgid {
				ours = false // see Pool.find
			}
			if sent[pid] {
				return false
			}
			found = append(found, member{pid, pidfd})
			return true
		})
		for _, m := range found {
			if ours {
				sent[m.pid] = true
				e := unix.PidfdSendSignal(m.pidfd, syscall.Signal(sig), nil, 0)
				if e == nil || err == syscall.ESRCH {
					err = e
				}
			}
			unix.Close(m.pidfd)
		}
		if !ours || len(found) == 0 {
			break
		}
	}
	return err
}

// Release forgets a child whose main process was reaped although its group
// lives on: nothing more is reported for token.
func (p *Pool) Release(token Token) {
	defer p.bury()
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.children[token]; c != nil && c.reported {
		p.forget(c)
	}
}
