package logs

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bounds of the queue between callers and the reader goroutine.
const (
	maxCommands    = 64 << 10
	maxQueuedBytes = 8 << 20
)

// verb is what a command asks the reader goroutine to do.
type verb uint8

const (
	verbPrint  verb = iota // print the record
	verbRaw                // print text as it stands
	verbHold               // read no further than here
	verbBegin              // print the record, then go on under its pid
	verbLabel              // go on under the record's pid
	verbEnd                // end a partial line, print the record, go on
	verbRemove             // end a partial line and close the FIFO
)

// command is one request to the reader goroutine.
type command struct {
	verb verb
	fifo *fifo // nil for the daemon's own lines
	mark uint64
	rec  Record
}

// size estimates the memory that c holds.
func (c *command) size() int {
	return 192 + len(c.rec.Text) + len(c.rec.Msg) + 64*len(c.rec.Attrs)
}

// queue carries commands to the reader goroutine. Putting never waits.
type queue struct {
	mu      sync.Mutex
	items   []command
	bytes   int
	full    bool // refuse all until the reader has taken what is there
	closed  bool
	dropped uint64 // lines refused since the last take
	// stale are the FIFOs whose commands were refused: their want fields say
	// where the refused commands would have led.
	stale []*fifo
	woken bool // the reader was woken and has not yet taken
	event int  // eventfd that lets the reader's epoll_wait return; -1 when closed
}

// put appends c, unless the queue is full or closed, and reports whether it was
// taken. What is about the daemon itself wakes the reader; the rest waits for
// flush, since waking it costs more than all else, at the very moment at which
// a start is under way.
func (q *queue) put(c command) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	size := c.size()
	if len(q.items) >= maxCommands || q.bytes+size > maxQueuedBytes {
		q.full = true
	}
	if q.full || q.closed {
		if c.verb != verbHold && c.verb != verbLabel && c.verb != verbRemove {
			q.dropped++
		}
		return false
	}
	q.items = append(q.items, c)
	q.bytes += size
	if c.verb == verbPrint || c.verb == verbRaw || c.verb == verbRemove {
		q.rouse()
	}
	return true
}

// flush wakes the reader if there is something for it.
func (q *queue) flush() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) > 0 {
		q.rouse()
	}
}

// rouse wakes the reader if it may sleep. mu is held.
func (q *queue) rouse() {
	if !q.woken {
		q.woken = true
		q.signal()
	}
}

// wake lets the reader's epoll_wait return.
func (q *queue) wake() {
	q.mu.Lock()
	q.signal()
	q.mu.Unlock()
}

// signal writes to the eventfd. mu is held, so that the descriptor is still
// ours.
func (q *queue) signal() {
	if q.event >= 0 {
		one := [8]byte{1} // any number but zero will do, whatever the byte order
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(q.event), uintptr(unsafe.Pointer(&one)), uintptr(len(one)))
	}
}

// putStale notes that a command about f was refused. f.mu is held.
func (q *queue) putStale(f *fifo) {
	if f.stale {
		return
	}
	f.stale = true
	q.mu.Lock()
	q.stale = append(q.stale, f)
	q.mu.Unlock()
}

// take returns all that is queued and what was refused behind it. spare is an
// earlier result whose memory may be used again.
func (q *queue) take(spare []command) (items []command, stale []*fifo, dropped uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	items, stale, dropped = q.items, q.stale, q.dropped
	if cap(spare) > 1024 {
		spare = nil // a burst is over: do not hold its memory
	}
	q.items, q.stale, q.dropped = spare[:0], nil, 0
	q.bytes, q.full, q.woken = 0, false, false
	return items, stale, dropped
}

// empty reports whether there is nothing to take.
func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items) == 0 && len(q.stale) == 0 && q.dropped == 0
}

// close refuses everything from now on, and closes the eventfd.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	if q.event >= 0 {
		unix.Close(q.event)
		q.event = -1
	}
	q.mu.Unlock()
}
