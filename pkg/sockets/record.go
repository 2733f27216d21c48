package sockets

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Record identifies an open socket, to find it again in another image or
// another process of the same boot.
type Record struct {
	Key
	FD       int    // the descriptor, in the process that has it
	Cookie   uint64 // SO_COOKIE, which no two sockets of a boot share (Linux 4.12)
	Dev, Ino uint64 // of a unix socket's file
}

func cookieOf(fd int) (uint64, error) {
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
}

// check reports an error unless fd is the socket that the record is about.
func (r *Record) check(fd int) error {
	cookie, err := cookieOf(fd)
	if err != nil {
		return fmt.Errorf("socket %s: descriptor %d: %w", r, fd, err)
	}
	// Two network namespaces may count the same cookies on older kernels.
	bound, err := r.boundAs(fd)
	if err != nil {
		return fmt.Errorf("socket %s: descriptor %d: %w", r, fd, err)
	}
	if cookie != r.Cookie || !bound {
		return fmt.Errorf("socket %s: descriptor %d is another socket", r, fd)
	}
	return nil
}

// boundAs reports whether fd is of the type and at the address of the key.
func (k Key) boundAs(fd int) (bool, error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return false, err
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		return false, err
	}
	if (kind == unix.SOCK_DGRAM) != (k.Network == UDP) {
		return false, nil
	}
	switch at := at.(type) {
	case *unix.SockaddrUnix:
		return k.Network == Unix && at.Name == k.Address, nil
	case *unix.SockaddrInet4:
		return k.Network != Unix && k.isAddr(netip.AddrFrom4(at.Addr), at.Port), nil
	case *unix.SockaddrInet6:
		return k.Network != Unix && k.isAddr(netip.AddrFrom16(at.Addr), at.Port), nil
	}
	return false, nil
}

func (k Key) isAddr(ip netip.Addr, port int) bool {
	spec := Spec{Network: k.Network, Address: k.Address}
	host, want, err := spec.addrPort()
	if err != nil || int(want.Port()) != port {
		return false
	}
	return want.Addr() == ip || host == "" && ip == netip.IPv4Unspecified()
}

// Reclaim takes the socket of a record back from a living process that it was
// passed to, whatever number it has there, and returns a descriptor of it,
// close-on-exec and the caller's. pidfd and pid are that process. It needs the
// right to ptrace the process, and Linux 5.6 (pidfd_getfd(2)).
func Reclaim(pid, pidfd int, r *Record) (fd int, err error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, err := os.ReadDir(dir)
	if err != nil {
		return -1, fmt.Errorf("socket %s: %w", r, err)
	}
	for _, name := range names {
		number, err := strconv.Atoi(name.Name())
		if err != nil {
			continue
		}
		// Cheap, and nothing but a hint: the number may change its meaning,
		// and even the pid its process, before the next call.
		if link, err := os.Readlink(dir + "/" + name.Name()); err != nil || !strings.HasPrefix(link, "socket:") {
			continue
		}
		fd, err := unix.PidfdGetfd(pidfd, number, 0)
		if err == unix.EBADF {
			continue // closed meanwhile
		}
		if err != nil {
			return -1, fmt.Errorf("socket %s: pidfd_getfd %d of process %d: %w", r, number, pid, err)
		}
		if r.check(fd) == nil {
			return fd, nil
		}
		unix.Close(fd)
	}
	return -1, fmt.Errorf("socket %s: process %d does not have it", r, pid)
}
