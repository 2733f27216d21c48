package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Sizes of the fixed structures of include/uapi/linux/inet_diag.h. Ports and
// addresses are in network byte order, all else in the host's.
const (
	diagRequestLen = 56 // struct inet_diag_req_v2
	diagMessageLen = 72 // struct inet_diag_msg
)

// identity tells one socket from every other. The inode is that of its file; it
// is zero once no file is left. It is a counter of 32 bits and may come again;
// the cookie is one of 64.
type identity struct {
	inode  uint32
	cookie uint64
}

// socket is what sock_diag says about one TCP socket.
type socket struct {
	addr, peer netip.AddrPort
	state      tcpStateCode
	uid        uint32
	id         identity
}

// usable says whether the socket's uid may be believed. The kernel reads the
// uid before the inode, and a socket that lost its file does not get another:
// with an inode, the uid is the owner's.
func (s socket) usable() error {
	if s.state != established {
		return fmt.Errorf("%w: the client's end is %s", ErrNotEstablished, s.state)
	}
	if s.id.inode == 0 {
		return fmt.Errorf("%w: the client's end is closed", ErrNotEstablished)
	}
	return nil
}

// lookup asks the kernel for the TCP socket with the given address and peer. It
// needs no privilege. A netlink socket is opened for each question: that costs
// some microseconds, and saves both a descriptor and a lock.
func lookup(addr, peer netip.AddrPort) (socket, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return socket{}, fmt.Errorf("sock_diag: %w", err)
	}
	defer conn.Close()
	replies, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request},
		Data:   diagRequest(addr, peer),
	})
	if errors.Is(err, unix.ENOENT) {
		return socket{}, ErrNoSocket
	}
	if err != nil {
		return socket{}, fmt.Errorf("sock_diag: %w", err)
	}
	if len(replies) != 1 || replies[0].Header.Type != unix.SOCK_DIAG_BY_FAMILY {
		return socket{}, errDiagReply
	}
	s, err := parseDiag(replies[0].Data)
	if err != nil {
		return socket{}, err
	}
	// With no connection of these addresses the kernel answers with a socket
	// that listens on the client's port, if there is one.
	if s.addr != addr || s.peer != peer {
		return socket{}, ErrNoSocket
	}
	return s, nil
}

// diagRequest asks for one socket by its exact addresses.
func diagRequest(addr, peer netip.AddrPort) []byte {
	b := make([]byte, diagRequestLen)
	b[0] = unix.AF_INET6
	if addr.Addr().Is4() {
		b[0] = unix.AF_INET // finds IPv4-mapped IPv6 sockets too
	}
	b[1] = unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], 1<<established)
	binary.BigEndian.PutUint16(b[8:], addr.Port())
	binary.BigEndian.PutUint16(b[10:], peer.Port())
	copy(b[12:28], addr.Addr().AsSlice())
	copy(b[28:44], peer.Addr().AsSlice())
	// b[44:48] is the interface, 0 for any; then INET_DIAG_NOCOOKIE.
	binary.NativeEndian.PutUint64(b[48:], ^uint64(0))
	return b
}

var errDiagReply = errors.New("sock_diag: malformed reply")

// parseDiag decodes a struct inet_diag_msg and ignores the attributes after it.
func parseDiag(b []byte) (socket, error) {
	if len(b) < diagMessageLen {
		return socket{}, errDiagReply
	}
	var addr, peer netip.Addr
	switch b[0] {
	case unix.AF_INET:
		addr, peer = netip.AddrFrom4([4]byte(b[8:])), netip.AddrFrom4([4]byte(b[24:]))
	case unix.AF_INET6:
		addr, peer = netip.AddrFrom16([16]byte(b[8:])).Unmap(), netip.AddrFrom16([16]byte(b[24:])).Unmap()
	default:
		return socket{}, errDiagReply
	}
	return socket{
		addr:  netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[4:])),
		peer:  netip.AddrPortFrom(peer, binary.BigEndian.Uint16(b[6:])),
		state: tcpStateCode(b[1]),
		uid:   binary.NativeEndian.Uint32(b[64:]),
		id: identity{
			inode:  binary.NativeEndian.Uint32(b[68:]),
			cookie: binary.NativeEndian.Uint64(b[44:]),
		},
	}, nil
}

// tcpStateCode is a state of include/net/tcp_states.h.
type tcpStateCode uint8

const (
	established tcpStateCode = 1
	tcpClose    tcpStateCode = 7
)

func (s tcpStateCode) String() string {
	names := [...]string{"", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT",
		"CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV"}
	if s == 0 || int(s) >= len(names) {
		return fmt.Sprintf("in state %d", uint8(s))
	}
	return names[s]
}
