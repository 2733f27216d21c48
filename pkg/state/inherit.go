package state

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Inherited is what an image left to the next one with [Exec].
type Inherited struct {
	// Saved is the state, nil when it could not be read.
	Saved *Saved
	files map[string]int
}

// Take returns the descriptor of that name, which is the caller's from then
// on, and false when there is none.
func (i *Inherited) Take(name string) (fd int, ok bool) {
	fd, ok = i.files[name]
	delete(i.files, name)
	return fd, ok
}

// TakeAll returns all descriptors that nobody has taken, by name. They are the
// caller's from then on.
func (i *Inherited) TakeAll() map[string]int {
	all := i.files
	i.files = nil
	return all
}

// Names returns the names of the descriptors that nobody has taken, sorted.
func (i *Inherited) Names() []string {
	return slices.Sorted(maps.Keys(i.files))
}

// Close closes the descriptors that nobody has taken.
func (i *Inherited) Close() error {
	var errs []error
	for name, fd := range i.files {
		if err := unix.Close(fd); err != nil {
			errs = append(errs, fmt.Errorf("close %q: %w", name, err))
		}
	}
	clear(i.files)
	return errors.Join(errs...)
}

// Inherit returns what the image before this one left, and nil, nil when
// there was none. Call it once, early in main and after signal.Notify; it
// removes [Environ] from the environment, sets close-on-exec on every
// descriptor from 3 on and closes the one the state was in.
//
// With an error the first result is still what could be read. Saved is nil
// when the state was unreadable: then all that the image before left open is
// closed, since nobody can tell what it is, and a lock would go with any of it.
// A descriptor that is closed, or is not
// what its name says, is missing and left alone. An image that gets an error
// goes on, as children may be running.
func Inherit() (*Inherited, error) {
	val, ok := os.LookupEnv(Environ)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(Environ); err != nil {
		return &Inherited{}, fmt.Errorf("inherit state: %w", err)
	}
	fd, err := strconv.Atoi(val)
	if err != nil || fd < 3 {
		err = fmt.Errorf("%s=%q is no descriptor", Environ, val)
		return &Inherited{}, fmt.Errorf("inherit state: %w", errors.Join(err, closeNameless()))
	}
	saved, err := ReadState(fd)
	if err != nil {
		return &Inherited{}, fmt.Errorf("inherit state: %w", errors.Join(err, closeNameless()))
	}
	unix.Close(fd)
	// 5.11+. Before, the named ones are set below, one by one; only when the
	// state is unreadable would the others then reach children.
	marked := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC) == nil

	inh := &Inherited{Saved: saved, files: make(map[string]int, len(saved.Files))}
	var errs []error
	for _, f := range saved.Files {
		err := verifyKind(f)
		if err == nil && !marked {
			err = setCloexec(f.FD, true)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("inherit %q: %w", f.Name, err))
			continue
		}
		inh.files[f.Name] = f.FD
	}
	return inh, errors.Join(errs...)
}

// closeNameless closes what the image before left open: what has outlived execve is
// not close-on-exec, and all that this program opens is.
func closeNameless() error {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, name := range list {
		fd, err := strconv.Atoi(name.Name())
		if err != nil || fd < 3 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	return nil
}

// verifyKind checks that a descriptor is open and of the kind its name says.
func verifyKind(f File) error {
	kind, _, _ := strings.Cut(f.Name, ":")
	if kind == KindPidfd && onPidfs(f.FD) {
		return nil // one system call for what there are most of
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.FD, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	mode := st.Mode & unix.S_IFMT
	ok := false
	switch kind {
	case KindPidfd:
		ok = isPidfd(f.FD)
	case KindListener:
		ok = mode == unix.S_IFSOCK && sockopt(f.FD, unix.SO_ACCEPTCONN) == 1
	case KindSocket:
		ok = mode == unix.S_IFSOCK && sockopt(f.FD, unix.SO_ACCEPTCONN) == 0
	case KindNetlink:
		ok = mode == unix.S_IFSOCK && sockopt(f.FD, unix.SO_DOMAIN) == unix.AF_NETLINK
	case KindFIFO:
		ok = mode == unix.S_IFIFO
	case KindFile:
		ok = mode == unix.S_IFREG
	default:
		return fmt.Errorf("no such kind of descriptor: %q", kind)
	}
	if !ok {
		return fmt.Errorf("descriptor %d is no %s (mode %#o)", f.FD, kind, st.Mode)
	}
	return nil
}

// onPidfs recognises pidfds by their file system (pidfs, 6.9+).
func onPidfs(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.PID_FS_MAGIC
}

// isPidfd recognises pidfds without pidfs by the name of their anonymous inode.
func isPidfd(fd int) bool {
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return err == nil && link == "anon_inode:[pidfd]"
}

// sockopt returns an option of the socket level, -1 when it cannot be read.
func sockopt(fd, opt int) int {
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt)
	if err != nil {
		return -1
	}
	return v
}
