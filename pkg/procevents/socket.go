package procevents

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socket is the connector's socket, and what is waited for in Go's poller: not the
// socket itself, but an epoll set that has it alone, once (EPOLLONESHOT). The
// poller is edge-triggered, so with the socket in it each message would wake a
// thread, also while nobody waits for the next: a reader that lets messages
// gather for some milliseconds would pay ten microseconds for each all the same.
type socket struct {
	mu sync.RWMutex
	fd int // -1 once it is closed

	set   *os.File
	raw   syscall.RawConn // of set
	armed bool            // of the receiving goroutine: the next message makes set readable
	event [1]unix.EpollEvent
}

// newSocket takes the socket over, unless an error is returned.
func newSocket(fd int) (*socket, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("proc connector: %w", os.NewSyscallError("epoll_create1", err))
	}
	// What makes os.NewFile hand it to the poller; epoll_wait does not care.
	if err := unix.SetNonblock(ep, true); err != nil {
		unix.Close(ep)
		return nil, fmt.Errorf("proc connector: %w", os.NewSyscallError("fcntl", err))
	}
	s := &socket{fd: fd, set: os.NewFile(uintptr(ep), "proc connector"), armed: true}
	s.event[0] = unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &s.event[0]); err != nil {
		s.set.Close()
		return nil, fmt.Errorf("proc connector: %w", os.NewSyscallError("epoll_ctl", err))
	}
	if err := s.set.SetReadDeadline(time.Time{}); err != nil { // it is in the poller
		s.set.Close()
		return nil, fmt.Errorf("proc connector: wait for an epoll set: %w", err)
	}
	if s.raw, err = s.set.SyscallConn(); err != nil {
		s.set.Close()
		return nil, fmt.Errorf("proc connector: %w", err)
	}
	return s, nil
}

// dup returns a duplicate of a descriptor that is not in Go's poller.
func dup(c syscall.Conn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("proc connector: %w", err)
	}
	if ctlErr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); ctlErr != nil {
		return -1, fmt.Errorf("proc connector: %w", ctlErr)
	}
	if err != nil {
		return -1, fmt.Errorf("proc connector: duplicate socket: %w", err)
	}
	return fd, nil
}

// control runs fn with the socket's descriptor, which stays open meanwhile.
func (s *socket) control(fn func(fd int) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd < 0 {
		return os.ErrClosed
	}
	return fn(s.fd)
}

// disarm takes note that the set became readable: nothing does that any more.
func (s *socket) disarm(set int) {
	// The system call does not block.
	if n, err := unix.EpollWait(set, s.event[:], 0); err == nil && n > 0 {
		s.armed = false
	}
}

// arm has the set become readable at the next message, or at once if there is
// one. mu is held.
func (s *socket) arm(set int) error {
	s.event[0] = unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT}
	if err := unix.EpollCtl(set, unix.EPOLL_CTL_MOD, s.fd, &s.event[0]); err != nil {
		return err
	}
	s.armed = true
	return nil
}

// close makes a wait for the set end, and then closes the socket.
func (s *socket) close() error {
	err := s.set.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if closeErr := unix.Close(s.fd); err == nil {
		err = closeErr
	}
	s.fd = -1
	return err
}
