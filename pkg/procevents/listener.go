package procevents

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// DefaultBuffer is the receive buffer of a Config that does not say, in bytes:
// room for some 10,000 events.
const DefaultBuffer = 8 << 20

// Config says how to subscribe.
type Config struct {
	// Buffer is how much kernel memory, in bytes, may hold events that are not
	// yet received; 0 means DefaultBuffer. Each costs 832. Without
	// CAP_NET_ADMIN it is cut to the system's limit, twice net.core.rmem_max;
	// see [Listener.Buffer].
	Buffer int
}

// Stats counts what a Listener met since it was made.
type Stats struct {
	Overruns  uint64 // losses reported as ErrOverrun
	Malformed uint64 // datagrams that Decode refused
	Foreign   uint64 // datagrams that were not from the kernel
}

// conn is what both a netlink.Conn and an inherited os.File offer.
type conn interface {
	syscall.Conn
	SetReadDeadline(time.Time) error
	Close() error
}

// Listener is a subscription to the host's process events.
//
// One goroutine at a time may call Receive. All other methods may be called at
// any time from any goroutine.
type Listener struct {
	conn   conn
	raw    syscall.RawConn
	buffer int
	batch  *batch

	// Of the receiving goroutine: an overrun that has not been reported, and
	// how many more events may have been queued before it.
	overrun bool
	queued  int

	probed    atomic.Int64 // CLOCK_MONOTONIC in ns, before the last Probe
	closed    atomic.Bool
	overruns  atomic.Uint64
	malformed atomic.Uint64
	foreign   atomic.Uint64
}

// Dial subscribes to all process events and proves it, by waiting up to a
// second for an event of our own: the kernel drops requests it does not like
// without a word. Events of that time are not kept. The error says what is in
// the way; see [ErrPIDNamespace] and the others there.
func Dial(cfg Config) (*Listener, error) {
	if err := checkNamespaces(); err != nil {
		return nil, err
	}
	// The group of the proc connector is CN_IDX_PROC, here as a bit. The port
	// id is left to the kernel: ours may be taken by another socket.
	c, err := netlink.Dial(unix.NETLINK_CONNECTOR, &netlink.Config{Groups: 1 << (cnIdxProc - 1)})
	if err != nil {
		return nil, explain("open", err)
	}
	l, err := newListener(c)
	if err == nil {
		err = l.subscribe(cfg)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return l, nil
}

// FromFile returns a Listener for the socket of one made earlier, perhaps by
// another program that ran in this process: a subscription outlives execve(2).
// The file has to be in non-blocking mode, as [Listener.File] and an inherited
// descriptor of a Listener are. The Listener owns it from then on, unless an
// error is returned. Nothing is sent and nothing waited for; use
// [Listener.Probe] to see that events still come.
func FromFile(f *os.File) (*Listener, error) {
	if err := f.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("proc connector: inherited socket: %w", err)
	}
	l, err := newListener(f)
	if err != nil {
		return nil, err
	}
	var domain, protocol int
	if err := l.control(func(fd int) (err error) {
		if domain, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
			return err
		}
		protocol, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		return err
	}); err != nil {
		return nil, fmt.Errorf("proc connector: inherited socket: %w", err)
	}
	if domain != unix.AF_NETLINK || protocol != unix.NETLINK_CONNECTOR {
		return nil, errors.New("proc connector: inherited socket is not a connector's")
	}
	return l, nil
}

func newListener(c conn) (*Listener, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("proc connector: %w", err)
	}
	l := &Listener{conn: c, raw: raw, batch: newBatch()}
	if err := l.control(func(fd int) (err error) {
		l.buffer, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		return err
	}); err != nil {
		return nil, fmt.Errorf("proc connector: read buffer size: %w", err)
	}
	return l, nil
}

// subscribe sets the buffer, asks for the events, and waits for one.
func (l *Listener) subscribe(cfg Config) error {
	want := cfg.Buffer
	if want <= 0 {
		want = DefaultBuffer
	}
	if err := l.control(func(fd int) (err error) {
		// The kernel doubles what it is given, to allow for its overhead, and
		// reports and applies the double.
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, want/2); err != nil {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, want/2)
		}
		if err != nil {
			return err
		}
		l.buffer, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		return err
	}); err != nil {
		return fmt.Errorf("proc connector: set buffer size: %w", err)
	}
	if err := l.send(mcastListen); err != nil {
		return explain("subscribe", err)
	}
	return l.prove(time.Second)
}

// Operations of enum proc_cn_mcast_op.
const (
	mcastListen = 1
	mcastIgnore = 2
)

// send sends one request in its old form of 4 bytes, which every kernel takes.
// Since 6.6 there is one of 8 with a choice of events; older kernels ignore it.
func (l *Listener) send(op uint32) error {
	b := make([]byte, nlHeaderLen+cnHeaderLen+4)
	ne := binary.NativeEndian
	ne.PutUint32(b[0:], uint32(len(b)))
	ne.PutUint16(b[4:], unix.NLMSG_DONE)
	cn := b[nlHeaderLen:]
	ne.PutUint32(cn[0:], cnIdxProc)
	ne.PutUint32(cn[4:], cnValProc)
	ne.PutUint16(cn[16:], 4)
	ne.PutUint32(cn[cnHeaderLen:], op)
	return l.control(func(fd int) error {
		return unix.Sendto(fd, b, unix.MSG_DONTWAIT, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	})
}

// control runs fn with the socket's descriptor, which stays open meanwhile.
func (l *Listener) control(fn func(fd int) error) error {
	var err error
	if ctlErr := l.raw.Control(func(fd uintptr) { err = fn(int(fd)) }); ctlErr != nil {
		return ctlErr
	}
	return err
}

// Buffer returns the size of the receive buffer in bytes of kernel memory, as
// the kernel granted it. An event takes 832 of them.
func (l *Listener) Buffer() int { return l.buffer }

// Lost returns how many events the kernel has dropped because the buffer was
// full, since the socket was opened. The count is the kernel's and wraps around
// at 32 bits.
func (l *Listener) Lost() (uint32, error) {
	var info [unix.SK_MEMINFO_VARS]uint32
	err := l.control(func(fd int) error {
		size := uint32(unsafe.Sizeof(info))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("proc connector: getsockopt SO_MEMINFO: %w", err)
	}
	return info[unix.SK_MEMINFO_DROPS], nil
}

// Stats returns the counts so far.
func (l *Listener) Stats() Stats {
	return Stats{Overruns: l.overruns.Load(), Malformed: l.malformed.Load(), Foreign: l.foreign.Load()}
}

// SetReadDeadline makes a Receive that waits, or will, fail at t with an error
// that matches [os.ErrDeadlineExceeded]. The zero time means never.
func (l *Listener) SetReadDeadline(t time.Time) error { return l.conn.SetReadDeadline(t) }

// SyscallConn gives access to the socket, for example to its number when it is
// to be kept through an execve. It is close-on-exec and non-blocking.
func (l *Listener) SyscallConn() (syscall.RawConn, error) { return l.raw, nil }

// File returns a duplicate of the socket, close-on-exec, for [FromFile]. Both
// have one subscription and one queue of events between them.
func (l *Listener) File() (*os.File, error) {
	var dup int
	if err := l.control(func(fd int) (err error) {
		dup, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return err
	}); err != nil {
		return nil, fmt.Errorf("proc connector: duplicate socket: %w", err)
	}
	return os.NewFile(uintptr(dup), "proc connector"), nil
}

// Close ends the subscription, for duplicates of the socket too, and makes a
// Receive that waits return an error that matches [os.ErrClosed]. Of several
// Listeners with one subscription, close one alone: before Linux 6.6 the kernel
// counts how often it was asked to begin and to end, by whomever, and one end
// too many silences another listener of the host.
func (l *Listener) Close() error {
	if l.closed.Swap(true) {
		return fmt.Errorf("proc connector: close: %w", os.ErrClosed)
	}
	// Without this the kernel would go on making messages, until it notices
	// that nobody takes them. A failure leaves just that.
	_ = l.send(mcastIgnore)
	return l.conn.Close()
}
