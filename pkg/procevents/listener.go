package procevents

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// DefaultBuffer is the receive buffer of a Config that does not say, in bytes:
// room for some 10,000 events.
const DefaultBuffer = 8 << 20

// Config says how to subscribe.
type Config struct {
	// Kinds are the kinds of events that Receive returns; none means all. Ask
	// for those in use only: the others take no room in the buffer and cost the
	// reader nothing where the kernel can keep them away, otherwise they are sorted
	// out here. Those who cause them pay all the same. Ack
	// and Unknown cannot be asked for: they come when all kinds do.
	Kinds []Kind
	// Buffer is how much kernel memory, in bytes, may hold events that are not
	// yet received; 0 means DefaultBuffer. Each costs 832. Without
	// CAP_NET_ADMIN it is cut to the system's limit, twice net.core.rmem_max;
	// see [Listener.Buffer].
	Buffer int
}

// Stats counts what a Listener met since it was made.
type Stats struct {
	Overruns  uint64 // times that the buffer was full and events were lost
	Malformed uint64 // messages that Decode refused
	Foreign   uint64 // datagrams that were not from the kernel
	Proofs    uint64 // events caused because nothing else was heard for 10 s
}

// Listener is a subscription to the host's process events.
//
// One goroutine at a time may call Receive. All other methods may be called at
// any time from any goroutine.
type Listener struct {
	sock   *socket
	buffer int
	filter filter
	kinds  atomic.Uint32 // a kindSet
	batch  *batch

	// Of the receiving goroutine, about losses: an overrun that has not been
	// reported, how many more events may have been queued before it, the
	// kernel's count at the last report, any other loss not reported, and the
	// numbers of the messages where no filter makes gaps in them.
	overrun  bool
	queued   int
	reported uint32
	gap      error
	numbered bool
	sequence sequence

	// Also of the receiving goroutine: when the last event that was received
	// happened, on CLOCK_MONOTONIC, and one that was caused to have one.
	heard        time.Duration
	proof        proof
	asked        bool
	quietAfter   time.Duration
	answerWithin time.Duration

	mu       sync.Mutex // of the socket's deadline
	deadline time.Time  // the caller's
	checkAt  time.Time  // our own

	closed    atomic.Bool
	overruns  atomic.Uint64
	malformed atomic.Uint64
	foreign   atomic.Uint64
	proofs    atomic.Uint64
}

// Dial subscribes to the host's process events and proves it, by waiting up to
// a second for an event of our own: the kernel drops requests it does not like
// without a word, and its answers to those that it likes may be filtered.
// Events of that time are not kept. The error says what is in the way; see
// [ErrPIDNamespace] and the others there.
func Dial(cfg Config) (*Listener, error) {
	kinds, err := kindsOf(cfg.Kinds)
	if err != nil {
		return nil, err
	}
	if err := checkNamespaces(); err != nil {
		return nil, err
	}
	f := noFilter
	if kinds != allKinds {
		f = filterFor(release())
	}
	l, err := dial(cfg, kinds, f)
	if f == connectorFilter && errors.Is(err, ErrSilent) {
		// A request of 8 bytes is ignored by a kernel that does not know it,
		// whatever its number says.
		l, err = dial(cfg, kinds, socketFilter)
	}
	return l, err
}

// dial subscribes with the filter given.
func dial(cfg Config, kinds kindSet, f filter) (*Listener, error) {
	// The group of the proc connector is CN_IDX_PROC, here as a bit. The port
	// id is left to the kernel: ours may be taken by another socket.
	c, err := netlink.Dial(unix.NETLINK_CONNECTOR, &netlink.Config{Groups: 1 << (cnIdxProc - 1)})
	if err != nil {
		return nil, explain("open", err)
	}
	defer c.Close()
	l, err := newListener(c, kinds)
	if err != nil {
		return nil, err
	}
	l.numbered, l.filter = f == noFilter, f
	if err := l.subscribe(cfg, f); err != nil {
		l.sock.close()
		return nil, err
	}
	return l, nil
}

// FromFile returns a Listener for the socket of one made earlier, perhaps by
// another program that ran in this process: a subscription outlives execve(2).
// cfg should be that of the earlier one. Its Kinds say what Receive returns of
// what the socket gets; what the socket gets, and its buffer, stay as they are,
// until [Listener.SetKinds] is called.
//
// The Listener owns the file from then on, unless an error is returned. Nothing
// is sent and nothing waited for; if no events come Receive will notice as always.
func FromFile(f *os.File, cfg Config) (*Listener, error) {
	kinds, err := kindsOf(cfg.Kinds)
	if err != nil {
		return nil, err
	}
	l, err := newListener(f, kinds)
	if err != nil {
		return nil, err
	}
	if kinds != allKinds && filterFor(release()) != noFilter {
		l.filter = anyFilter // the earlier one may have had to do with either
	}
	if err := l.inherited(); err != nil {
		l.sock.close()
		return nil, err
	}
	if err := f.Close(); err != nil {
		l.sock.close()
		return nil, fmt.Errorf("proc connector: inherited socket: %w", err)
	}
	return l, nil
}

// inherited sees that the socket is a connector's, and begins where it is.
func (l *Listener) inherited() (err error) {
	var domain, protocol int
	if err := l.control(func(fd int) (err error) {
		if domain, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
			return err
		}
		protocol, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		return err
	}); err != nil {
		return fmt.Errorf("proc connector: inherited socket: %w", err)
	}
	if domain != unix.AF_NETLINK || protocol != unix.NETLINK_CONNECTOR {
		return errors.New("proc connector: inherited socket is not a connector's")
	}
	l.numbered = l.wanted() == allKinds
	if l.reported, err = l.Lost(); err != nil {
		return err
	}
	if l.heard, err = monotonic(); err != nil {
		return err
	}
	return l.checkIn(l.quietAfter)
}

// newListener makes one of a duplicate of c.
func newListener(c syscall.Conn, kinds kindSet) (*Listener, error) {
	fd, err := dup(c)
	if err != nil {
		return nil, err
	}
	sock, err := newSocket(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	l := &Listener{sock: sock, batch: newBatch(sock), quietAfter: quietAfter, answerWithin: answerWithin}
	l.kinds.Store(uint32(kinds))
	if err := l.control(func(fd int) (err error) {
		l.buffer, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		return err
	}); err != nil {
		sock.close()
		return nil, fmt.Errorf("proc connector: read buffer size: %w", err)
	}
	return l, nil
}

// subscribe sets the buffer, asks for the events, and waits for one.
func (l *Listener) subscribe(cfg Config, f filter) error {
	if err := l.setBuffer(cfg.Buffer); err != nil {
		return err
	}
	request := []uint32{mcastListen}
	switch f {
	case connectorFilter:
		request = append(request, l.wanted().mask())
	case socketFilter:
		if err := l.attach(l.wanted().mask()); err != nil {
			return err
		}
	}
	if err := l.send(request...); err != nil {
		return explain("subscribe", err)
	}
	if err := checkKernel(); err != nil {
		return err
	}
	return l.awaitProof()
}

func (l *Listener) setBuffer(want int) error {
	if want <= 0 {
		want = DefaultBuffer
	}
	// The kernel doubles what it is given, to allow for its overhead, and
	// reports and applies the double.
	half := want/2 + want%2
	if err := l.control(func(fd int) (err error) {
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, half); err != nil {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, half)
		}
		if err != nil {
			return err
		}
		l.buffer, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		return err
	}); err != nil {
		return fmt.Errorf("proc connector: set buffer size: %w", err)
	}
	return nil
}

// Operations of enum proc_cn_mcast_op.
const (
	mcastListen = 1
	mcastIgnore = 2
)

// send sends one request: an operation, which every kernel takes, or a struct
// proc_input of an operation and a mask of events, Linux 6.6 and later.
func (l *Listener) send(words ...uint32) error {
	b := make([]byte, nlHeaderLen+cnHeaderLen+4*len(words))
	ne := binary.NativeEndian
	ne.PutUint32(b[0:], uint32(len(b)))
	ne.PutUint16(b[4:], unix.NLMSG_DONE)
	cn := b[nlHeaderLen:]
	ne.PutUint32(cn[0:], cnIdxProc)
	ne.PutUint32(cn[4:], cnValProc)
	ne.PutUint16(cn[16:], uint16(4*len(words)))
	for i, w := range words {
		ne.PutUint32(cn[cnHeaderLen+4*i:], w)
	}
	return l.control(func(fd int) error {
		return unix.Sendto(fd, b, unix.MSG_DONTWAIT, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	})
}

// control runs fn with the socket's descriptor, which stays open meanwhile.
func (l *Listener) control(fn func(fd int) error) error { return l.sock.control(fn) }

// Buffer returns the size of the receive buffer in bytes of kernel memory, as
// the kernel granted it. An event takes 832 of them.
func (l *Listener) Buffer() int { return l.buffer }

// Stats returns the counts so far.
func (l *Listener) Stats() Stats {
	return Stats{Overruns: l.overruns.Load(), Malformed: l.malformed.Load(), Foreign: l.foreign.Load(), Proofs: l.proofs.Load()}
}

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
	return l.sock.close()
}
