package state

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// verify returns what is wrong with descriptors, at their places. Nobody is answered
// meanwhile, and there may be thousands of them, so two goroutines share the work.
func verify(files []File) []error {
	errs := make([]error, len(files))
	half := len(files) / 2
	var other sync.WaitGroup
	other.Go(func() { verifyEach(files[:half], errs[:half]) })
	verifyEach(files[half:], errs[half:])
	other.Wait()
	return errs
}

func verifyEach(files []File, errs []error) {
	for i, f := range files {
		errs[i] = verifyKind(f)
	}
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
