package state

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked is what [Lock] returns when another process holds the lock.
var ErrLocked = errors.New("another process holds the lock")

// Lock opens the pid file at path, makes it if need be, takes its write lock
// and writes this process's pid and a newline to it. With [ErrLocked] holder
// is the pid of the process that holds it, 0 where the kernel does not tell
// (it lives in another PID namespace).
//
// The lock is fcntl(2)'s F_SETLK, not flock(2): it names its holder, and who inherits
// the descriptor does not share it. It is the table of descriptors that has it,
// though, and a child that was made with CLONE_FILES has that until it gets its own:
// so the holder may be dead, see [Dead] and [AwaitLock]. The lock
// goes when this process ends or closes any descriptor of the file, so nothing
// else in this process may open it; it survives execve when the descriptor is
// handed over, but below 5.11 not that of a threaded program: take it again
// with [Relock].
//
// The last element of path must not be a symbolic link; the directory is the
// caller's to know, see [RuntimeDir].
func Lock(path string) (f *os.File, holder int, err error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
		if err != nil {
			if errors.Is(err, unix.ELOOP) {
				return nil, 0, fmt.Errorf("lock %s: it is a symbolic link", path)
			}
			return nil, 0, fmt.Errorf("lock %s: %w", path, err)
		}
		holder, err := Relock(f)
		if err != nil {
			f.Close()
			return nil, holder, err
		}
		// A daemon that was stopping may have removed the file meanwhile.
		if same, err := isAt(f, path); err != nil || !same {
			f.Close()
			if err != nil {
				return nil, 0, fmt.Errorf("lock %s: %w", path, err)
			}
			continue
		}
		return f, 0, nil
	}
}

// Relock takes the lock of an open pid file, which an earlier image of this
// process may hold already, and writes the pid to it; see [Lock].
func Relock(f *os.File) (holder int, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	if !st.Mode().IsRegular() {
		return 0, fmt.Errorf("lock %s: not a regular file", f.Name())
	}
	for {
		lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
		err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lk)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return 0, fmt.Errorf("lock %s: %w", f.Name(), os.NewSyscallError("fcntl F_SETLK", err))
		}
		if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lk); err != nil {
			return 0, fmt.Errorf("lock %s: %w", f.Name(), os.NewSyscallError("fcntl F_GETLK", err))
		}
		if lk.Type != unix.F_UNLCK { // else the holder ended in between
			return int(max(lk.Pid, 0)), fmt.Errorf("lock %s: %w", f.Name(), ErrLocked)
		}
		lk = unix.Flock_t{}
	}
	// In this order a reader finds the whole pid on the first line at any
	// moment, never an empty file.
	pid := fmt.Appendf(nil, "%d\n", os.Getpid())
	if _, err := f.WriteAt(pid, 0); err != nil {
		return 0, fmt.Errorf("lock: %w", err)
	}
	if err := f.Truncate(int64(len(pid))); err != nil {
		return 0, fmt.Errorf("lock: %w", err)
	}
	return 0, nil
}

// AwaitLock is [Lock] where the holder is dead: it tries again until timeout. To wait
// in F_SETLKW with a limit would take a second thread, whose lock would be this
// process's as well.
func AwaitLock(path string, timeout time.Duration) (f *os.File, holder int, err error) {
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(timeout); ; <-again.C {
		f, holder, err = Lock(path)
		if !errors.Is(err, ErrLocked) || time.Now().After(deadline) {
			return f, holder, err
		}
	}
}

// Dead reports whether there is no living process of that pid.
func Dead(pid int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err == unix.ESRCH
	}
	defer unix.Close(fd)
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// isAt reports whether path still names the open file.
func isAt(f *os.File, path string) (bool, error) {
	a, err := f.Stat()
	if err != nil {
		return false, err
	}
	b, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(a, b), nil
}
