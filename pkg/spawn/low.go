package spawn

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A child copies the table of descriptors up to the highest that it needs, which the
// kernel rounds up to 64 (dup_fd in fs/file.c), and closes what it is not to have.
// Each of those is a file whose count of users is in no cache by then: of a start
// after a pause that was a tenth, and most of what the child itself does before
// execve(2).
const lowest = 64

// fewDescriptors is the RLIMIT_NOFILE below which none is taken for that.
const fewDescriptors = 4096

// Low are the descriptors below 64, all of one file: /dev/null. Not for use by
// several goroutines at once.
type Low struct{ fds []int }

// TakeLow takes those that are free, close-on-exec, so that everything that is opened
// later has a higher number. A process that starts children calls it before it opens
// anything, and gives what it returns to its Pool. Where there are few descriptors it
// takes none.
func TakeLow() (*Low, error) {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil && limit.Cur < fewDescriptors {
		return nil, nil
	}
	first, err := openAbove2(unix.AT_FDCWD, "/dev/null", unix.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	l := &Low{fds: []int{first}}
	for last := first; ; {
		if last >= lowest {
			unix.Close(last)
			l.fds = l.fds[:len(l.fds)-1]
			return l, nil
		}
		if last, err = unix.FcntlInt(uintptr(first), unix.F_DUPFD_CLOEXEC, first+1); err != nil {
			l.Close()
			return nil, fmt.Errorf("take the descriptors below %d: %w", lowest, err)
		}
		l.fds = append(l.fds, last)
	}
}

// take gives one away, or -1 if there is none.
func (l *Low) take() int {
	if l == nil || len(l.fds) == 0 {
		return -1
	}
	fd := l.fds[0]
	l.fds = l.fds[1:]
	return fd
}

// Close gives them all back. A nil Low has none.
func (l *Low) Close() {
	for fd := l.take(); fd >= 0; fd = l.take() {
		unix.Close(fd)
	}
}
