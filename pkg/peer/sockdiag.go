package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

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
// needs no privilege. A netlink socket is opened for each question, which takes
// 12 µs in all, so there is none to keep, to guard and to lose.
func lookup(addr, peer netip.AddrPort) (socket, error) {
	reply, err := ask(diagRequest(addr, peer))
	if err != nil {
		return socket{}, fmt.Errorf("sock_diag: %w", err)
	}
	s, err := parseReply(reply)
	if errors.Is(err, unix.ENOENT) {
		return socket{}, ErrNoSocket
	}
	if err != nil {
		return socket{}, fmt.Errorf("sock_diag: %w", err)
	}
	// With no connection of these addresses the kernel answers with a socket
	// that listens on the client's port, if there is one.
	if s.addr != addr || s.peer != peer {
		return socket{}, ErrNoSocket
	}
	return s, nil
}

// ask sends one request and returns the kernel's reply, which is there when the
// request has been sent: the kernel answers in the sender's system call.
func ask(request []byte) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	reply := make([]byte, 512)
	n, from, err := unix.Recvfrom(fd, reply, 0)
	if err != nil {
		return nil, os.NewSyscallError("recvfrom", err)
	}
	if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
		return nil, errDiagReply // not the kernel's
	}
	return reply[:n], nil
}

// diagRequest asks for one socket by its exact addresses.
func diagRequest(addr, peer netip.AddrPort) []byte {
	ne, be := binary.NativeEndian, binary.BigEndian
	msg := make([]byte, unix.NLMSG_HDRLEN+diagRequestLen)
	ne.PutUint32(msg[0:], uint32(len(msg)))
	ne.PutUint16(msg[4:], unix.SOCK_DIAG_BY_FAMILY)
	ne.PutUint16(msg[6:], unix.NLM_F_REQUEST)

	b := msg[unix.NLMSG_HDRLEN:]
	b[0] = unix.AF_INET6
	if addr.Addr().Is4() {
		b[0] = unix.AF_INET // finds IPv4-mapped IPv6 sockets too
	}
	b[1] = unix.IPPROTO_TCP
	ne.PutUint32(b[4:], 1<<established)
	be.PutUint16(b[8:], addr.Port())
	be.PutUint16(b[10:], peer.Port())
	copy(b[12:28], addr.Addr().AsSlice())
	copy(b[28:44], peer.Addr().AsSlice())
	// b[44:48] is the interface, 0 for any; then INET_DIAG_NOCOOKIE.
	ne.PutUint64(b[48:], ^uint64(0))
	return msg
}

var errDiagReply = errors.New("malformed reply")

// parseReply decodes a netlink message that carries a struct inet_diag_msg, and
// ignores the attributes after it, or one that carries an error.
func parseReply(msg []byte) (socket, error) {
	ne, be := binary.NativeEndian, binary.BigEndian
	if len(msg) < unix.NLMSG_HDRLEN {
		return socket{}, errDiagReply
	}
	size := ne.Uint32(msg[0:])
	if size < unix.NLMSG_HDRLEN || uint64(size) > uint64(len(msg)) {
		return socket{}, errDiagReply
	}
	b := msg[unix.NLMSG_HDRLEN:size]
	switch ne.Uint16(msg[4:]) {
	case unix.NLMSG_ERROR:
		if len(b) < 4 || int32(ne.Uint32(b)) >= 0 {
			return socket{}, errDiagReply
		}
		return socket{}, unix.Errno(-int32(ne.Uint32(b)))
	case unix.SOCK_DIAG_BY_FAMILY:
		if len(b) < diagMessageLen {
			return socket{}, errDiagReply
		}
	default:
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
		addr:  netip.AddrPortFrom(addr, be.Uint16(b[4:])),
		peer:  netip.AddrPortFrom(peer, be.Uint16(b[6:])),
		state: tcpStateCode(b[1]),
		uid:   ne.Uint32(b[64:]),
		id:    identity{inode: ne.Uint32(b[68:]), cookie: ne.Uint64(b[44:])},
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
