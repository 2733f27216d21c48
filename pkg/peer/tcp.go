package peer

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Why the owner of a client's socket is not known. Every one of them means that
// the client has no name, and should be refused.
var (
	// ErrNotLoopback: one end, or both, is not a loopback address, or the
	// connection is not TCP.
	ErrNotLoopback = errors.New("not a TCP connection over loopback")
	// ErrNoSocket: no socket of this network namespace has the client's
	// address. It is closed, or behind address translation.
	ErrNoSocket = errors.New("no such client socket in this network namespace")
	// ErrNotEstablished: the client, or we, closed or half closed the
	// connection, or it was reset.
	ErrNotEstablished = errors.New("connection is not established")
	// ErrReplaced: another socket has taken the client's address since the
	// connection was accepted.
	ErrReplaced = errors.New("client's address belongs to another socket now")
)

// Client is the client's end of an accepted TCP connection over loopback. It
// holds no descriptor of its own, so there is nothing to close. It is safe for
// concurrent use.
type Client struct {
	raw   syscall.RawConn // our end
	local netip.AddrPort
	addr  netip.AddrPort // the client's
	id    identity
}

// TCP finds the client's socket of c, a connection just accepted such as a
// [net.TCPConn], and remembers its identity for [Client.UID]. Call it at
// accept, before anything is read. A failure matches one of this package's
// errors, or is one of the system's; then the client cannot be known.
func TCP(c syscall.Conn) (*Client, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("peer of tcp socket: %w", err)
	}
	cl := &Client{raw: raw}
	if cl.local, cl.addr, err = addresses(raw); err != nil {
		return nil, fmt.Errorf("peer of tcp socket: %w", err)
	}
	s, err := cl.look()
	if err != nil {
		return nil, fmt.Errorf("client %s: %w", cl.addr, err)
	}
	cl.id = s.id
	return cl, nil
}

// UID returns the user who owns the client's socket, asked of the kernel anew.
// Call it after the request has been read, and for each request of a connection
// that carries several. An error means that the client is not known, for the
// reason it says; it never comes with a uid that could be acted on.
func (c *Client) UID() (uint32, error) {
	s, err := c.look()
	if err != nil {
		return nobody, fmt.Errorf("client %s: %w", c.addr, err)
	}
	if s.id != c.id {
		return nobody, fmt.Errorf("client %s: %w", c.addr, ErrReplaced)
	}
	return s.uid, nil
}

// nobody goes with every error, so that a caller who overlooks one has not been
// handed root. It is (uid_t)-1, which no user can have (credentials(7)).
const nobody = ^uint32(0)

// look asks for the client's socket, then checks our own. The order matters:
// an end that is established was so a moment earlier too.
func (c *Client) look() (socket, error) {
	s, err := lookup(c.addr, c.local)
	if err != nil {
		return socket{}, err
	}
	if err := s.usable(); err != nil {
		return socket{}, err
	}
	state, err := tcpState(c.raw)
	if err != nil {
		return socket{}, err
	}
	if state != established {
		return socket{}, fmt.Errorf("%w: our end is %s", ErrNotEstablished, state)
	}
	return s, nil
}

// addresses returns both ends of a TCP connection, IPv4 ones as such also when
// the socket is IPv6, or ErrNotLoopback.
func addresses(raw syscall.RawConn) (local, remote netip.AddrPort, err error) {
	var ours, theirs unix.Sockaddr
	var protocol int
	if ctlErr := raw.Control(func(fd uintptr) {
		if protocol, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil {
			err = os.NewSyscallError("getsockopt SO_PROTOCOL", err)
			return
		}
		if ours, err = unix.Getsockname(int(fd)); err != nil {
			err = os.NewSyscallError("getsockname", err)
			return
		}
		if theirs, err = unix.Getpeername(int(fd)); err != nil {
			err = os.NewSyscallError("getpeername", err)
		}
	}); ctlErr != nil {
		return local, remote, ctlErr
	}
	switch {
	case errors.Is(err, unix.ENOTCONN): // reset before it was accepted
		return local, remote, fmt.Errorf("%w: our end is %s", ErrNotEstablished, tcpClose)
	case err != nil:
		return local, remote, err
	}
	local, remote = addrPort(ours), addrPort(theirs)
	// The two addresses are equal only for a socket connected to itself, which
	// nobody accepted.
	if protocol != unix.IPPROTO_TCP || local == remote || !local.Addr().IsLoopback() || !remote.Addr().IsLoopback() {
		return local, remote, ErrNotLoopback
	}
	return local, remote, nil
}

// addrPort returns the zero AddrPort, which is no loopback address, for
// anything but an internet address.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

func tcpState(raw syscall.RawConn) (state tcpStateCode, err error) {
	if ctlErr := raw.Control(func(fd uintptr) {
		var info *unix.TCPInfo
		if info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			state = tcpStateCode(info.State)
		}
	}); ctlErr != nil {
		return 0, ctlErr
	}
	return state, os.NewSyscallError("getsockopt TCP_INFO", err)
}
