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
	if c == nil || c.ended {
		return signalError(sig, token, syscall.ESRCH)
	}
	return signalError(sig, token, unix.PidfdSendSignal(c.pidfd, syscall.Signal(sig), nil, 0))
}

// SignalGroup sends sig to every process in the group that the main process of
// token leads. Once that has ended it is SignalTree. It fails with an error that
// wraps syscall.ESRCH if there is none.
func (p *Pool) SignalGroup(token Token, sig int) error {
	p.mu.Lock()
	c := p.children[token]
	switch {
	case c == nil:
		p.mu.Unlock()
		return signalError(sig, token, syscall.ESRCH)
	case c.ended:
		p.mu.Unlock()
		return p.SignalTree(token, sig)
	case p.exact:
		defer p.mu.Unlock()
		return signalError(sig, token, unix.PidfdSendSignal(c.pidfd, syscall.Signal(sig), nil, unix.PIDFD_SIGNAL_PROCESS_GROUP))
	}
	p.mu.Unlock()
	defer p.spend()()
	return signalError(sig, token, signalEach(func() []int { return p.groupOf(c) }, sig))
}

func signalError(sig int, token Token, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("send signal %d to child %d: %w", sig, token, err)
}

// Release forgets a child whose main process was reaped although its tree
// lives on: nothing more is reported for token.
func (p *Pool) Release(token Token) {
	defer p.bury()
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.children[token]; c != nil && c.reported {
		p.forget(c)
	}
}
