package spawn

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is the kernel's struct sigaction, or more than that; all zero is
// SIG_DFL.
type sigaction [4]uint64

// setHandler is sigaction(2).
func setHandler(sig unix.Signal, action, old *sigaction) bool {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig),
		uintptr(unsafe.Pointer(action)), uintptr(unsafe.Pointer(old)), sigsetSize, 0, 0)
	return errno == 0
}

// DefaultActions has the kernel do with signals to this process what it does by default,
// and returns what undoes that. Go installs a handler for every signal at its start,
// os/signal or not, keeps it after [os/signal.Stop], and knows nothing of this: so it
// must be undone before [os/signal.Notify]. An execve(2) makes nothing of it: the
// handlers of the next image are its own.
func DefaultActions(signals ...os.Signal) (undo func()) {
	handlers := make(map[unix.Signal]*sigaction, len(signals))
	for _, s := range signals {
		sig, ok := s.(unix.Signal)
		if old := new(sigaction); ok && setHandler(sig, new(sigaction), old) {
			handlers[sig] = old
		}
	}
	return func() {
		for sig, old := range handlers {
			setHandler(sig, old, nil)
		}
	}
}

// muteSIGCHLD has the kernel drop SIGCHLD as it comes: its default action is to
// be ignored, and other than with SIG_IGN children become zombies all the same
// (sigaction(2)).
func (p *Pool) muteSIGCHLD() { p.unmute = DefaultActions(unix.SIGCHLD) }

// unmuteSIGCHLD undoes muteSIGCHLD. p.mu is held, or nobody else has p yet.
func (p *Pool) unmuteSIGCHLD() {
	if p.unmute != nil {
		p.unmute()
		p.unmute = nil
	}
}
