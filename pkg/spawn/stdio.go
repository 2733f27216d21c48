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

// files are the files of a child on the way to its program. They get numbers that
// were taken early and are low: see Low.
type files struct {
	devnull int  // somebody else's
	low     *Low // likewise
	// slots are those numbers, of devnull while they wait: one for each of the
	// first three, then those for what is passed on. One that was never needed is -1.
	slots   [3 + passSlots]int
	slotted [3 + passSlots]bool
	passed  []int
}

// newFiles takes the number that every child needs, that of its output.
func newFiles(devnull int, low *Low) (*files, error) {
	f := &files{devnull: devnull, low: low}
	for i := range f.slots {
		f.slots[i] = -1
	}
	if f.reserve(1) != 0 {
		return nil, fmt.Errorf("take a descriptor: %w", syscall.EMFILE)
	}
	return f, nil
}

// reserve takes the number of slot i, if that was not done yet.
func (f *files) reserve(i int) syscall.Errno {
	if f.slots[i] >= 0 {
		return 0
	}
	if f.slots[i] = f.low.take(); f.slots[i] >= 0 {
		return 0
	}
	fd, err := unix.FcntlInt(uintptr(f.devnull), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return errnoOf(err)
	}
	f.slots[i] = fd
	return 0
}

// close gives back everything but devnull.
func (f *files) close() {
	f.release()
	for _, fd := range f.slots {
		if fd >= 0 {
			f.low.give(fd)
		}
	}
}

// take returns descriptors, all above 2, of what the child is to have as 0, 1 and 2;
// below 0 is devnull. They are good until release, and what was given is still the
// caller's to close.
func (f *files) take(opened *[3]int) (fds [3]int, errno syscall.Errno) {
	for i, fd := range opened {
		switch {
		case fd < 0:
			fds[i] = f.devnull
		case i == 2 && fd == opened[1]:
			fds[i] = fds[1]
		default:
			if fds[i], errno = f.lower(fd, i); errno != 0 {
				return fds, errno
			}
		}
	}
	return fds, 0
}

// lower makes slot i another descriptor of the file of fd.
func (f *files) lower(fd, i int) (int, syscall.Errno) {
	if errno := f.reserve(i); errno != 0 {
		return -1, errno
	}
	if errno := dup3Raw(fd, f.slots[i]); errno != 0 {
		return -1, errno
	}
	f.slotted[i] = true
	return f.slots[i], 0
}

// pass returns descriptors, all above 2, of the files that the child is to get
// as 3, 4, …. They are good until release.
func (f *files) pass(fds []int) ([]int, *StartError) {
	f.passed = f.passed[:0]
	slot := 3
	for _, fd := range fds {
		if fd < 3 || fd > f.slots[1] && slot < len(f.slots) {
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

// release gives the numbers back to devnull.
func (f *files) release() {
	for i, taken := range f.slotted {
		if taken {
			// Fails only if one of the two is no descriptor.
			_ = dup3Raw(f.devnull, f.slots[i])
			f.slotted[i] = false
		}
	}
}

// dup3Raw is dup3(2) without a word to the scheduler: it does not block, unless what
// to was is closed by it and takes its time. Slots are never that.
func dup3Raw(from, to int) syscall.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_DUP3, uintptr(from), uintptr(to), unix.O_CLOEXEC)
	return errno
}

// at returns what is to be looked up, and in which directory.
func (io *Stdio) at() (dir int, name string) {
	if io.Dir > 0 {
		return io.Dir, io.Path[strings.LastIndexByte(io.Path, '/')+1:]
	}
	return unix.AT_FDCWD, io.Path
}

// openRaw opens the file for a child's output, in a directory of ours, so that it does not block.
func (io *Stdio) openRaw() (int, error) {
	dir, name := io.at()
	return openRaw(dir, name, io.Flags|unix.O_CLOEXEC|unix.O_NOCTTY)
}

// openStdio opens the files of s; -1 is /dev/null. They are to be closed by closeStdio
// in any case.
func openStdio(s *Spec) (opened [3]int, err *StartError) {
	opened = [3]int{-1, -1, -1}
	for i, io := range [3]*Stdio{&s.Stdin, &s.Stdout, &s.Stderr} {
		switch {
		case io.Path == "":
		case i == 2 && *io == s.Stdout:
			opened[i] = opened[1]
		default:
			dir, name := io.at()
			fd, e := openAbove2(dir, name, io.Flags, 0o600)
			if e != nil {
				return opened, &StartError{Op: "open", Path: io.Path, Errno: errnoOf(e)}
			}
			opened[i] = fd
		}
	}
	return opened, nil
}

func closeStdio(opened *[3]int) {
	for i, fd := range opened {
		if fd >= 0 && (i < 2 || fd != opened[1]) {
			unix.Close(fd)
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
