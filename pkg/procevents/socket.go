package procevents

import (
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is the connector's socket and what waits for it. Go's poller would wake
// a thread for every single event, also for those that come while the receiver
// gathers, and on a calm host that thread takes the CPU from the very process
// that the event is about. So the socket is not in the poller. An epoll set is,
// with the socket as its only member and EPOLLONESHOT: it tells of one event, and of no
// further one until it is armed anew.
type socket struct {
	file  *os.File        // in blocking mode, so that package os keeps it out of the poller
	raw   syscall.RawConn // of file
	set   *os.File        // the epoll set
	wait  syscall.RawConn // of set
	epfd  int
	armed bool               // of the receiving goroutine
	event [1]unix.EpollEvent // memory for the system calls
}

// newSocket takes over the socket of c, which it closes unless it fails.
func newSocket(c conn) (_ *socket, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if ctlErr := raw.Control(func(old uintptr) {
		fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	}); ctlErr != nil {
		return nil, ctlErr
	}
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	s := &socket{file: os.NewFile(uintptr(fd), "proc connector")}
	if err := s.watch(fd); err != nil {
		s.file.Close()
		return nil, err
	}
	return s, c.Close()
}

// watch makes the epoll set.
func (s *socket) watch(fd int) (err error) {
	if s.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	// What makes package os hand it to the poller; epoll_wait does not care.
	err = unix.SetNonblock(s.epfd, true)
	if err == nil {
		err = unix.EpollCtl(s.epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLONESHOT})
	}
	if err != nil {
		unix.Close(s.epfd)
		return fmt.Errorf("watch the socket: %w", err)
	}
	s.set = os.NewFile(uintptr(s.epfd), "epoll")
	if s.raw, err = s.file.SyscallConn(); err == nil {
		s.wait, err = s.set.SyscallConn()
	}
	if err != nil {
		s.set.Close()
	}
	return err
}

// arm has the next event told of, or what there is already. fd is the socket's.
func (s *socket) arm(fd uintptr) {
	s.armed = true
	s.event[0] = unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT}
	s.control(unix.EPOLL_CTL_MOD, fd)
}

// disarm reports whether anything was told since the socket was armed; if so
// nothing more is until it is armed again.
func (s *socket) disarm() (told bool) {
	if !s.armed {
		return false
	}
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(s.epfd), uintptr(unsafe.Pointer(&s.event)), uintptr(len(s.event)), 0, 0, 0)
	told = errno == 0 && n > 0
	s.armed = !told
	return told
}

func (s *socket) control(op int, fd uintptr) {
	// Both descriptors are ours and open, and the socket is in the set.
	_, _, _ = syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(s.epfd), uintptr(op), fd, uintptr(unsafe.Pointer(&s.event)), 0, 0)
}

// SetReadDeadline is that of what waits.
func (s *socket) SetReadDeadline(t time.Time) error { return s.set.SetReadDeadline(t) }

// Close ends a wait, and closes the socket.
func (s *socket) Close() error {
	s.set.Close()
	return s.file.Close()
}
