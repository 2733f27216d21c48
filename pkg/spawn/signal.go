package spawn

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Signal is a signal to the main process of a child.
type Signal struct {
	Token  Token
	Signal int
}

// Signal sends signals to main processes, by their pidfds and in this order, and
// returns the errors at the same places: one that wraps syscall.ESRCH if there
// is no such process any more, or not yet. Nothing is reaped before the last is
// sent: a thousand that are to stop are all told before the first of them takes
// time from the others, see hurry.
func (p *Pool) Signal(list []Signal) []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(list) >= crowd {
		defer hurry()()
	}
	errs := make([]error, len(list))
	for i, s := range list {
		err := error(syscall.ESRCH)
		if c := p.children[s.Token]; c != nil && !c.ended {
			err = sendSignal(c.pidfd, s.Signal)
		}
		errs[i] = signalError(s.Signal, s.Token, err)
	}
	return errs
}

// sendSignal is pidfd_send_signal(2), which does not block.
func sendSignal(pidfd, sig int) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_PIDFD_SEND_SIGNAL, uintptr(pidfd), uintptr(sig), 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
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
