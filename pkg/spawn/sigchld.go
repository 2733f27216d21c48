package spawn

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is the kernel's struct sigaction, or more than that; all zero is
// SIG_DFL.
type sigaction [4]uint64

// muteSIGCHLD has the kernel drop SIGCHLD as it comes: its default action is to
// be ignored, and other than with SIG_IGN children become zombies all the same
// (sigaction(2)). Go installs a handler for every signal at its start, os/signal
// or not, and knows nothing of this: so it must be undone before Notify. An
// execve(2) makes nothing of it: the handlers of the next image are its own.
func (p *Pool) muteSIGCHLD() {
	var dfl sigaction
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD),
		uintptr(unsafe.Pointer(&dfl)), uintptr(unsafe.Pointer(&p.handler)), sigsetSize, 0, 0)
	if errno != 0 {
		p.handler = sigaction{}
	}
}

// unmuteSIGCHLD undoes muteSIGCHLD. p.mu is held, or nobody else has p yet.
func (p *Pool) unmuteSIGCHLD() {
	if p.handler == (sigaction{}) {
		return
	}
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD),
		uintptr(unsafe.Pointer(&p.handler)), 0, sigsetSize, 0, 0)
	p.handler = sigaction{}
}
