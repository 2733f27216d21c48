package sockets

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// The networks of a Spec.
const (
	TCP  = "tcp"
	UDP  = "udp"
	Unix = "unix" // stream sockets
)

// Spec says what socket is wanted.
type Spec struct {
	// Network is TCP, UDP or Unix.
	Network string
	// Address is HOST:PORT with an IP address, or the absolute path of a unix
	// socket. Without HOST, and with [::], it is all addresses of both families;
	// 0.0.0.0 is those of IPv4 alone.
	Address string
	// Mode is the permission bits of a unix socket's file, whatever the umask.
	Mode uint32
	// ReusePort makes one socket for each index instead of one for all, all of
	// the same address: the kernel shares connections out among them
	// (SO_REUSEPORT, socket(7)). Not for Unix.
	ReusePort bool
	// UID and GID are whose the socket is, and a unix socket's file.
	UID, GID int
}

// String is the address as it is written in a configuration.
func (s *Spec) String() string { return address(s.Network, s.Address) }

func address(network, addr string) string {
	if network == Unix {
		return Unix + ":" + addr
	}
	return network + "://" + addr
}

// Key is the identity of a socket in a Set: what it is bound to, not what it is
// for. So a socket that gets another name or another user stays.
type Key struct {
	Network, Address string
	ReusePort        bool
	Index            int // 0 unless ReusePort
}

func (s *Spec) key(index int) Key {
	k := Key{Network: s.Network, Address: s.Address, ReusePort: s.ReusePort}
	if s.ReusePort {
		k.Index = index
	}
	return k
}

// String is unique among all keys.
func (k Key) String() string {
	text := address(k.Network, k.Address)
	if k.ReusePort {
		text += "#" + strconv.Itoa(k.Index)
	}
	return text
}

// Error says which step failed for which socket. It unwraps to the errno.
type Error struct {
	Op      string // the system call
	Address string // as Spec.String returns it
	Err     error
}

// Error is the step, the address and the reason.
func (e *Error) Error() string { return fmt.Sprintf("%s %s: %v", e.Op, e.Address, e.Err) }

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// maxBacklog has the kernel use the system's limit, net.core.somaxconn.
const maxBacklog = 1<<31 - 1

// open makes the socket. The second result is the file of a unix socket.
func (s *Spec) open() (int, inode, error) {
	if s.Network == Unix {
		return s.openUnix()
	}
	fd, err := s.openInet()
	return fd, inode{}, err
}

func (s *Spec) fail(op string, err error) error {
	return &Error{Op: op, Address: s.String(), Err: err}
}

func (s *Spec) openInet() (int, error) {
	host, addr, err := s.addrPort()
	if err != nil {
		return -1, s.fail("parse", err)
	}
	kind := unix.SOCK_STREAM
	if s.Network == UDP {
		kind = unix.SOCK_DGRAM
	}
	family := unix.AF_INET6
	if addr.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err == unix.EAFNOSUPPORT && host == "" {
		addr = netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port())
		fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		return -1, s.fail("socket", err)
	}
	if op, err := s.bindInet(fd, addr); err != nil {
		unix.Close(fd)
		return -1, s.fail(op, err)
	}
	return fd, nil
}

func (s *Spec) bindInet(fd int, addr netip.AddrPort) (op string, err error) {
	// First of all: the kernel shares a port among sockets of one user only.
	if err := unix.Fchown(fd, s.UID, s.GID); err != nil {
		return "fchown", err
	}
	var options []int
	if s.Network == TCP {
		options = append(options, unix.SO_REUSEADDR) // in spite of connections in TIME_WAIT
	}
	if s.ReusePort {
		options = append(options, unix.SO_REUSEPORT)
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, o, 1); err != nil {
			return "setsockopt", err
		}
	}
	var to unix.Sockaddr
	if addr.Addr().Is4() {
		to = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	} else {
		// Whatever net.ipv6.bindv6only says.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return "setsockopt", err
		}
		to = &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()}
	}
	if err := unix.Bind(fd, to); err != nil {
		return "bind", err
	}
	if s.Network == TCP {
		if err := unix.Listen(fd, maxBacklog); err != nil {
			return "listen", err
		}
	}
	return "", nil
}

// addrPort takes the address apart. Without a host it is that of all addresses.
func (s *Spec) addrPort() (host string, addr netip.AddrPort, err error) {
	host, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		return "", addr, unix.EINVAL
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", addr, unix.EINVAL
	}
	ip := netip.IPv6Unspecified()
	if host != "" {
		if ip, err = netip.ParseAddr(host); err != nil || ip.Zone() != "" {
			return "", addr, unix.EINVAL
		}
	}
	return host, netip.AddrPortFrom(ip, uint16(n)), nil
}
