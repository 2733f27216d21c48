package peer

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Cred is who connected to a unix domain socket, as of the moment of its
// connect(2).
type Cred struct {
	// PID is the process that connected, or 0 if it has none in our PID
	// namespace. It may have ended, and the number may be another's by now.
	PID int
	// UID and GID are its effective user and group.
	UID, GID uint32
	// Groups are its supplementary groups, in the kernel's order. They are
	// empty for a process that has none.
	Groups []uint32
}

// Unix returns the credentials of the process that connected to c, a connected
// unix domain socket such as a [net.UnixConn]. For the connecting side they are
// those of the process that called listen(2), for a socketpair(2) those of its
// maker.
//
// It fails on any other kind of socket, and where the kernel is older than 4.13
// (SO_PEERGROUPS). It is safe for concurrent use.
func Unix(c syscall.Conn) (Cred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Cred{}, fmt.Errorf("peer of unix socket: %w", err)
	}
	var cred Cred
	var opErr error
	if err := raw.Control(func(fd uintptr) { cred, opErr = unixCred(int(fd)) }); err != nil {
		return Cred{}, fmt.Errorf("peer of unix socket: %w", err)
	}
	if opErr != nil {
		return Cred{}, fmt.Errorf("peer of unix socket: %w", opErr)
	}
	return cred, nil
}

var errNotUnix = errors.New("not a unix domain socket")

func unixCred(fd int) (Cred, error) {
	// SO_PEERCRED succeeds on every socket; on all but unix domain sockets it
	// tells nothing, as pid 0 and uid -1.
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return Cred{}, os.NewSyscallError("getsockopt SO_DOMAIN", err)
	}
	if domain != unix.AF_UNIX {
		return Cred{}, errNotUnix
	}
	ucred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Cred{}, os.NewSyscallError("getsockopt SO_PEERCRED", err)
	}
	if ucred.Uid == ^uint32(0) {
		return Cred{}, os.NewSyscallError("getsockopt SO_PEERCRED", unix.ENOTCONN)
	}
	groups, err := peerGroups(fd)
	if err != nil {
		return Cred{}, os.NewSyscallError("getsockopt SO_PEERGROUPS", err)
	}
	return Cred{PID: int(ucred.Pid), UID: ucred.Uid, GID: ucred.Gid, Groups: groups}, nil
}

// peerGroups returns the peer's supplementary groups. The kernel answers ERANGE
// with the size it needs when the buffer is too small; the credentials of a
// connection do not change, so the second try fits.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 32)
	for {
		size := uint32(len(groups)) * 4
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && int(size/4) > len(groups):
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}
