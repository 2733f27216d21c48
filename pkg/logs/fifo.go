package logs

import (
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fifo is the reading end of one FIFO.
type fifo struct {
	key     Key
	path    string
	id      uint64 // in epoll's data; never used again, unlike a descriptor's number
	uid     int    // who owns it
	counts  *counts
	checked time.Time // when it was last seen at its path; under Output.mu
	old     *fifo     // one whose file somebody removed or replaced; under Output.mu

	// mu is held around a read and the count of what it read, so that
	// position sees both or neither. It may be held when queue.mu is taken,
	// never the other way round.
	mu       sync.Mutex
	fd       int    // -1 when closed
	consumed uint64 // bytes read since this fifo was made
	pending  int    // commands in the queue that wait for a position
	// What the last accepted or refused command asked for; see queue.stale.
	wantPID  int
	wantInc  uint64
	wantHold bool
	stale    bool

	// The rest belongs to the reader goroutine.
	partial []byte   // the beginning of a line, unless it is in the chunk
	blocks  []uint32 // where the backlog keeps it
	label   label
	held    bool // read nothing: a start is under way and its pid not yet known
	ready   bool // in Output.ready
}

// position returns how much was written into the FIFO until now, counted as
// consumed is. mu is held.
func (f *fifo) position() uint64 {
	return f.consumed + uint64(f.waiting())
}

// read puts what is there behind the first have bytes of chunk, up to limit, without
// waiting, and reports whether there is more. It reads nothing when the FIFO is
// closed, or must not be read before the queue was worked off.
//
// No more is asked for than is there, so that a read happens as a whole or not at
// all, and the backlog knows afterwards how much it was. The FIFO must be read
// until it is empty: a writer that fills one that was not does not wake anybody.
func (f *fifo) read(b *backlog, chunk []byte, have, limit int, evenIfPending bool) (n int, more bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fd < 0 || f.pending > 0 && !evenIfPending {
		return 0, false
	}
	there := f.waiting()
	want := min(there, limit, len(chunk)-have)
	if want <= 0 {
		return 0, false
	}
	b.reading(f, have, want)
	for {
		var err error
		n, err = unix.Read(f.fd, chunk[have:have+want])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			b.unread()
			return 0, false // the child has read its own output
		}
		break
	}
	b.took(f, have+n)
	f.consumed += uint64(n)
	b.count(f.counts, uint64(n), 0)
	return n, there > want || f.waiting() > 0
}

// waiting returns how much there is to read. mu is held.
func (f *fifo) waiting() int {
	var n int32
	// Raw: it does not block, and so need not tell the scheduler.
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(f.fd), unix.TIOCINQ, uintptr(unsafe.Pointer(&n))) // FIONREAD
	if errno != 0 {
		return 0
	}
	return int(n)
}

// missing returns how many bytes are yet to be read before mark.
func (f *fifo) missing(mark uint64) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fd < 0 || f.consumed >= mark {
		return 0
	}
	return mark - f.consumed
}

// settled notes that a command that waited for a position was carried out.
func (f *fifo) settled() {
	f.mu.Lock()
	f.pending--
	f.mu.Unlock()
}

// close takes the descriptor out of the epoll set and closes it. In that
// order: a child between fork and exec may hold a copy, and with one the
// closed descriptor would stay in the set (epoll(7)).
func (f *fifo) close(epfd int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fd < 0 {
		return
	}
	_ = unix.EpollCtl(epfd, unix.EPOLL_CTL_DEL, f.fd, nil)
	unix.Close(f.fd)
	f.fd = -1
}
