package spawn

import (
	"sync"

	"golang.org/x/sys/unix"
)

// A child copies the table of descriptors up to the highest that it needs, which the
// kernel rounds up to 64 (dup_fd in fs/file.c, Linux 5.9 to 6.18), and closes what it is
// not to have. Each of those is a file whose count of users is in no cache by then.
const lowEnd = 64

// fewDescriptors is the RLIMIT_NOFILE below which none is taken for that.
const fewDescriptors = 4096

// Low are descriptors below 64, all of one file: /dev/null. Its methods may be called
// from any goroutine; a nil Low has none.
type Low struct {
	mu     sync.Mutex
	fds    []int
	closed bool
}

// TakeLow takes those that are free, close-on-exec, so that everything that is opened
// later has a higher number. A process that starts children calls it before it opens
// anything, and gives what it returns to its Pool. Where few descriptors are allowed, or
// none can be had, it takes none and returns nil.
func TakeLow() *Low { return takeLow(maxDescriptors()) }

func takeLow(limit uint64) *Low {
	if limit < fewDescriptors {
		return nil
	}
	fd, err := openAbove2(unix.AT_FDCWD, "/dev/null", unix.O_RDWR, 0)
	l := &Low{}
	for err == nil && fd < lowEnd {
		l.fds = append(l.fds, fd)
		fd, err = unix.FcntlInt(uintptr(l.fds[0]), unix.F_DUPFD_CLOEXEC, 3)
	}
	if err != nil {
		l.Close()
		return nil
	}
	unix.Close(fd)
	return l
}

// take gives one away, or -1 if there is none.
func (l *Low) take() int {
	if l == nil {
		return -1
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.fds) == 0 {
		return -1
	}
	fd := l.fds[0]
	l.fds = l.fds[1:]
	return fd
}

// give takes one back that was given away, or closes it if it is none of those.
func (l *Low) give(fd int) {
	if l != nil && fd < lowEnd {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.closed {
			l.fds = append(l.fds, fd)
			return
		}
	}
	unix.Close(fd)
}

// Close closes all that were not given away, and those that are given back.
func (l *Low) Close() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fd := range l.fds {
		unix.Close(fd)
	}
	l.fds, l.closed = nil, true
}
