package logs

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// poller waits for an epoll set in Go's own poller, through a duplicate of its
// descriptor: an epoll set is itself readable when it has events (epoll(7)).
type poller struct {
	file *os.File
	raw  syscall.RawConn
}

func newPoller(epfd int) (*poller, error) {
	fd, err := unix.FcntlInt(uintptr(epfd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	// What makes os.NewFile hand it to the poller; epoll_wait does not care.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &poller{file: os.NewFile(uintptr(fd), "epoll")}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		return nil, err
	}
	return p, nil
}

// wait takes events, waiting until there is one.
func (p *poller) wait(events []unix.EpollEvent) (n int, err error) {
	waitErr := p.raw.Read(func(fd uintptr) bool {
		n, err = unix.EpollWait(int(fd), events, 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
	if err == nil {
		err = waitErr
	}
	return n, err
}

func (p *poller) close() { p.file.Close() }
