package procevents

import (
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchLen is how many datagrams one system call takes at most.
	batchLen = 128
	// slotLen holds a message of 76 bytes, with room for a later kernel's, or a
	// second.
	slotLen = 160
	// minEventCost is less than what any kernel charges for a queued event: a
	// struct sk_buff and its shared info alone are more.
	minEventCost = 512
)

// batch is the memory of recvmmsg(2) and its last result. It is made once: the
// headers point into it, and so does recv, a closure that would otherwise be
// allocated at each call.
type batch struct {
	headers [batchLen]unix.Mmsghdr
	iovecs  [batchLen]unix.Iovec
	names   [batchLen]unix.RawSockaddrNetlink
	data    [batchLen][slotLen]byte

	want  int  // how many datagrams to take
	wait  bool // whether to wait for the first
	n     int  // how many came
	errno unix.Errno
	sock  *socket
	recv  func(set uintptr) (done bool)
	await func(set uintptr) (told bool)

	next   int // datagram that is decoded next
	offset int // of the message in it
}

func newBatch(s *socket) *batch {
	b := &batch{sock: s}
	for i := range b.headers {
		b.iovecs[i].Base = &b.data[i][0]
		b.iovecs[i].SetLen(slotLen)
		h := &b.headers[i].Hdr
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Iov = &b.iovecs[i]
		h.SetIovlen(1)
	}
	b.recv, b.await = b.receive, b.told
	return b
}

// receive takes what is queued, up to b.want datagrams. It reports false, to have
// the poller wait for the set, when there is nothing and b.wait is set.
func (b *batch) receive(set uintptr) (done bool) {
	s := b.sock
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.armed {
		s.disarm(int(set))
	}
	if s.fd < 0 {
		b.n, b.errno = 0, unix.EBADF
		return true
	}
	b.recvmmsg(uintptr(s.fd))
	if b.errno != unix.EAGAIN || !b.wait {
		return true
	}
	if !s.armed {
		if err := s.arm(int(set)); err != nil {
			b.errno, _ = err.(unix.Errno)
			return true
		}
	}
	return false
}

// told reports whether there is something to be received. It reports false, to
// have the poller wait for the set, as long as nothing was told.
func (b *batch) told(set uintptr) bool {
	s := b.sock
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.armed {
		s.disarm(int(set))
		return !s.armed
	}
	if s.fd < 0 {
		return true // as the next receive finds out
	}
	return s.arm(int(set)) != nil
}

// recvmmsg makes the system call, without waiting.
func (b *batch) recvmmsg(fd uintptr) {
	for i := range b.headers[:b.want] {
		b.headers[i].Hdr.Namelen = unix.SizeofSockaddrNetlink
	}
	b.next, b.offset = 0, 0
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.headers[0])),
			uintptr(b.want), unix.MSG_DONTWAIT, 0, 0)
		b.n, b.errno = int(n), errno
		if errno != 0 {
			b.n = 0
		}
		if errno != unix.EINTR {
			return
		}
	}
}

// Wait returns when Receive would: when something is there to be received, or
// the silence is to be looked into. Who lets events gather waits with this, then
// calls Poll from time to time until nothing comes any more, and is not woken by
// what comes meanwhile. Its errors are those of Receive. It is Receive's goroutine
// that may call it.
func (l *Listener) Wait() error {
	b := l.batch
	if b.next < b.n || l.gap != nil || l.overrun {
		return nil
	}
	err := l.sock.raw.Read(b.await)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil // Receive knows whose deadline it is
	}
	if err != nil {
		return l.ioError("wait", err)
	}
	return nil
}

// Receive waits until there are events and stores them in dst, as many as are
// at hand and fit, in the order of their arrival. It allocates nothing and does
// not hold a thread while it waits.
//
// A [LostError] says that events were lost since the previous Receive; none
// come with it, and the next Receive goes on. An error that matches [ErrSilent]
// says that events have stopped: it comes within 13 seconds of the last. After
// any other the subscription should be made anew as well: it is the system's,
// or matches [os.ErrClosed] after Close, or [os.ErrDeadlineExceeded] after a
// deadline, which another deadline ends.
//
// While nothing happens on the host Receive wakes up every ten seconds, and
// causes an event to see that it arrives.
func (l *Listener) Receive(dst []Event) (int, error) { return l.receive(dst, true) }

// Poll is Receive without the wait: it returns 0 and no error where nothing is
// there. It is Receive's goroutine that may call it.
func (l *Listener) Poll(dst []Event) (int, error) { return l.receive(dst, false) }

func (l *Listener) receive(dst []Event, wait bool) (int, error) {
	if len(dst) == 0 {
		return 0, io.ErrShortBuffer
	}
	b := l.batch
	for {
		if n := l.decode(dst); n > 0 {
			return n, nil
		}
		if l.gap != nil {
			err := l.gap
			l.gap = nil
			return 0, err
		}
		if l.overrun && l.queued <= 0 {
			l.overrun = false
			return 0, l.overrunError()
		}
		b.want = min(len(dst), batchLen)
		b.wait = wait && !l.overrun
		if err := l.sock.raw.Read(b.recv); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && !l.overdue() {
				err = l.check()
			} else {
				err = l.ioError("receive", err)
			}
			if err != nil {
				return 0, err
			}
			continue
		}
		switch b.errno {
		case 0:
			l.queued -= b.n
		case unix.ENOBUFS:
			// The kernel tells at once, before what was queued until then, and
			// adds nothing until that has been taken. So the loss is reported
			// after it: when the queue is empty, or as many were taken as it
			// could hold, or when there is a next loss already.
			l.overruns.Add(1)
			previous := l.overrun
			l.overrun, l.queued = true, l.buffer/minEventCost
			var err error
			if l.heard, err = monotonic(); err != nil { // a full queue is not silence
				return 0, err
			}
			if previous {
				return 0, l.overrunError()
			}
		case unix.EAGAIN: // seen only by Poll, or with an overrun to report
			if !l.overrun {
				return 0, nil
			}
			l.overrun = false
			return 0, l.overrunError()
		default:
			return 0, l.ioError("receive", os.NewSyscallError("recvmmsg", b.errno))
		}
	}
}

// decode turns what is left of the batch into events until dst is full, and
// counts what is none.
func (l *Listener) decode(dst []Event) int {
	b := l.batch
	n := 0
	for ; b.next < b.n; b.next, b.offset = b.next+1, 0 {
		// Only the kernel has port id 0. A program needs CAP_NET_ADMIN to send
		// here, but should not pass for the kernel even so.
		if name := &b.names[b.next]; name.Family != unix.AF_NETLINK || name.Pid != 0 {
			l.foreign.Add(1)
			continue
		}
		data := b.data[b.next][:min(int(b.headers[b.next].Len), slotLen)]
		for first := true; first || b.offset < len(data); first = false {
			if n == len(dst) {
				return n
			}
			e := &dst[n]
			size, err := e.decode(data[b.offset:])
			if err != nil {
				l.malformed.Add(1)
			} else if l.take(e) {
				n++
			}
			if size == 0 {
				break
			}
			b.offset += (size + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1)
		}
	}
	return n
}

// take notes that an event was heard, and reports whether it is one that was
// asked for.
func (l *Listener) take(e *Event) bool {
	l.heard = max(l.heard, e.Timestamp)
	if l.numbered && l.sequence.add(e.CPU, e.Seq) > 0 && l.gap == nil {
		l.gap = l.checkGaps()
	}
	if l.proof.is(e) {
		l.answered()
		return false
	}
	return l.wanted().has(e.Kind)
}

// ioError gives the poller's error the name it has in package os, which does
// not do so for raw connections when the file was closed.
func (l *Listener) ioError(op string, err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case l.closed.Load():
		err = os.ErrClosed
	}
	return fmt.Errorf("proc connector: %s: %w", op, err)
}
