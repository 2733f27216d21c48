package spawn

import (
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// passSlots is how many descriptors that are passed on, and have a high
// number, get a low one. Beyond that the child copies a larger part of the
// table, which is slower and as good.
const passSlots = 4

// files are the files of the child that a spawner is about to start. What a child
// copies of the table of descriptors, and closes again, is all up to the highest one
// that it needs: each is a file whose count of users is not in any cache. So its
// files get numbers that were taken early and are low.
type files struct {
	devnull int
	// slots are those numbers, of devnull while they wait: one for each of the
	// first three, then those for what is passed on.
	slots   [3 + passSlots]int
	slotted [3 + passSlots]bool
	top     int    // the highest of them
	opened  [3]int // to be closed, or -1
	passed  []int
}

// newFiles takes the slots.
func newFiles() (*files, error) {
	f := &files{devnull: -1, opened: [3]int{-1, -1, -1}}
	for i := range f.slots {
		f.slots[i] = -1
	}
	var err error
	if f.devnull, err = openAbove2(unix.AT_FDCWD, "/dev/null", unix.O_RDWR, 0); err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	for i := range f.slots {
		if f.slots[i], err = unix.FcntlInt(uintptr(f.devnull), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			f.close()
			return nil, fmt.Errorf("take a descriptor: %w", err)
		}
		f.top = max(f.top, f.slots[i])
	}
	return f, nil
}

// close gives back everything.
func (f *files) close() {
	f.release()
	for _, fd := range append(f.slots[:], f.devnull) {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// open opens the files of s and returns the descriptors, all above 2, that the
// child is to have as 0, 1 and 2. The caller calls release afterwards in any case.
func (f *files) open(s *Spec) (fds [3]int, err *StartError) {
	for i, io := range [3]*Stdio{&s.Stdin, &s.Stdout, &s.Stderr} {
		switch {
		case io.Path == "":
			fds[i] = f.devnull
		case i == 2 && *io == s.Stdout:
			fds[i] = fds[1]
		default:
			var errno syscall.Errno
			if fds[i], errno = f.openOne(i, io); errno != 0 {
				return fds, &StartError{Op: "open", Path: io.Path, Errno: errno}
			}
		}
	}
	return fds, nil
}

func (f *files) openOne(i int, io *Stdio) (int, syscall.Errno) {
	dir, name := unix.AT_FDCWD, io.Path
	if io.Dir > 0 {
		dir, name = io.Dir, name[strings.LastIndexByte(name, '/')+1:]
	}
	fd, err := openAbove2(dir, name, io.Flags, 0o600)
	if err != nil {
		return -1, errnoOf(err)
	}
	if fd < f.top {
		f.opened[i] = fd
		return fd, 0
	}
	defer unix.Close(fd)
	return f.lower(fd, i)
}

// lower makes slot i another descriptor of the file of fd.
func (f *files) lower(fd, i int) (int, syscall.Errno) {
	if err := unix.Dup3(fd, f.slots[i], unix.O_CLOEXEC); err != nil {
		return -1, errnoOf(err)
	}
	f.slotted[i] = true
	return f.slots[i], 0
}

// pass returns descriptors, all above 2, of the files that the child is to get
// as 3, 4, …. They are good until release.
func (f *files) pass(fds []int) ([]int, *StartError) {
	f.passed = f.passed[:0]
	slot := len(f.opened)
	for _, fd := range fds {
		if fd < 3 || fd > f.top && slot < len(f.slots) {
			if slot == len(f.slots) {
				return nil, &StartError{Op: "pass", Errno: syscall.EBADF}
			}
			low, errno := f.lower(fd, slot)
			if errno != 0 {
				return nil, &StartError{Op: "pass", Errno: errno}
			}
			fd = low
			slot++
		}
		f.passed = append(f.passed, fd)
	}
	return f.passed, nil
}

// release closes what open opened, and what pass opened.
func (f *files) release() {
	for i, fd := range f.opened {
		if fd >= 0 {
			unix.Close(fd)
			f.opened[i] = -1
		}
	}
	for i, taken := range f.slotted {
		if taken {
			// Fails only if one of the two is no descriptor.
			_ = unix.Dup3(f.devnull, f.slots[i], unix.O_CLOEXEC)
			f.slotted[i] = false
		}
	}
}

// openAbove2 opens path close-on-exec, with a descriptor above 2: a child
// moves its files to 0, 1 and 2 one after the other.
func openAbove2(dirfd int, path string, flags int, perm uint32) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, path, flags|unix.O_CLOEXEC|unix.O_NOCTTY, perm)
		if err == unix.EINTR {
			continue
		}
		if err != nil || fd > 2 {
			return fd, err
		}
		defer unix.Close(fd)
		return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	}
}
