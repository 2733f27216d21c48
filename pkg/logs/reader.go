package logs

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Data of events that are not a FIFO's. FIFOs have numbers from firstFIFO.
const (
	wakeID uint64 = iota
	outID
	errID
	firstFIFO
)

const (
	// readSize is the most that is read from one FIFO in its turn, the
	// capacity of a pipe: a child that never stops writing gets no more often
	// to its turn than any other.
	readSize = 64 << 10
	// turnBytes is the most that is read before events and commands are
	// looked at again.
	turnBytes = 512 << 10
	// flushSize is how much is gathered before it is written.
	flushSize = 64 << 10
	// haltSlack is how much longer than it was given run may take to end: on a
	// host that is short of CPUs it has to get one first.
	haltSlack = 500 * time.Millisecond
)

// reader is the goroutine that reads FIFOs and writes output, and what belongs
// to it alone. Between two runs (see Pause) its caller owns it.
type reader struct {
	o        *Output
	out, err *sink
	format   *formatter
	events   []unix.EpollEvent
	ready    []*fifo // that may have something to read, in the order of their turns
	batch    []command
	next     int // index in batch of the command to carry out
	stale    []*fifo
	refused  uint64 // lines that the queue refused, not yet said
	now      time.Time
	backlog  *backlog
	chunk    chunk
	unfed    []*fifo // of which whole lines may be kept
	unkept   bool    // it was said that not all is kept

	stop      chan struct{} // closed to ask for the end of run; see halt
	deadline  time.Time     // set before stop is closed: how long to go on writing
	finished  chan struct{} // closed at the end of run
	absorbing bool          // gather in memory, write nothing; see absorb
}

func newReader(o *Output, out, err *sink, format *formatter) *reader {
	return &reader{
		o: o, out: out, err: err, format: format,
		events: make([]unix.EpollEvent, 256),
		now:    time.Now(),
	}
}

// hold has what is in hand in a backlog from now on.
func (r *reader) hold(b *backlog) {
	r.backlog, r.chunk.room = b, b.chunk()
	r.out.hold(b)
}

// start lets run begin.
func (r *reader) start() {
	r.stop, r.finished = make(chan struct{}), make(chan struct{})
	go r.run()
}

// halt asks run to end, gives it until grace to write what there is, and
// reports whether it did end in that time or shortly after it: it does not
// while a write(2) to a disk that hangs holds it up.
func (r *reader) halt(grace time.Duration) bool {
	r.deadline = time.Now().Add(grace)
	close(r.stop)
	r.o.queue.wake()
	select {
	case <-r.finished:
		return true
	case <-time.After(grace + haltSlack):
		return false
	}
}

// run reads and writes until halt asks it to stop.
func (r *reader) run() {
	defer close(r.finished)
	r.turn()
	for !r.stopping() {
		r.poll()
		r.turn()
	}
	r.finish()
}

// stopping reports whether the end of run was asked for.
func (r *reader) stopping() bool {
	select {
	case <-r.stop:
		return true
	default:
		return false
	}
}

// poll waits for something to do, if there is nothing.
func (r *reader) poll() {
	timeout := -1
	if len(r.ready) > 0 && !r.out.blocked {
		timeout = 0
	}
	r.wait(timeout)
}

// wait takes events, waiting for the first one up to timeout milliseconds, or
// without limit if that is negative: then in Go's poller, where a goroutine that
// waits holds no thread, and none need be woken to go on.
func (r *reader) wait(timeout int) {
	var n int
	var err error
	if timeout < 0 {
		n, err = r.o.poller.wait(r.events)
	} else {
		n, err = unix.EpollWait(r.o.epfd, r.events, timeout)
	}
	r.now = time.Now()
	if err != nil {
		return // EINTR
	}
	if n == 0 {
		return
	}
	r.o.mu.Lock()
	defer r.o.mu.Unlock()
	for i := range r.events[:n] {
		switch id := eventID(&r.events[i]); id {
		case wakeID:
			// Edge-triggered: nothing to read. The counter of an eventfd holds
			// 2^64-2 wakes; at one a microsecond that is half a million years.
		case outID, errID:
			// turn tries to write.
		default:
			if f := r.o.byID[id]; f != nil {
				r.push(f)
			}
		}
	}
}

// push puts f behind the others that wait for their turn.
func (r *reader) push(f *fifo) {
	if !f.ready {
		f.ready = true
		r.ready = append(r.ready, f)
	}
}

// turn does a bounded amount of work.
func (r *reader) turn() {
	if r.write() {
		r.children()
		r.flush(r.out)
	}
	r.watch()
}

// write carries out what is queued and writes what is there, and reports
// whether the output takes more.
func (r *reader) write() bool {
	r.err.buf = r.o.diag.take(r.err.buf, r.err.waiting())
	r.flush(r.err)
	r.flush(r.out)
	done := !r.out.blocked && r.work()
	return done && !r.out.blocked
}

// work goes on with what is in hand and with what is queued, and reports whether
// all of it was done; it was not if the output would have had to wait.
func (r *reader) work() bool {
	for r.split() && len(r.unfed) > 0 {
		f := r.unfed[0]
		r.unfed = r.unfed[1:]
		r.reprint(f, false)
	}
	return r.chunk.fifo == nil && r.commands()
}

// children reads from those FIFOs that have something, one after the other.
func (r *reader) children() {
	taken, turns := 0, len(r.ready)
	i := 0
	for ; i < turns && taken < turnBytes && !r.out.blocked; i++ {
		f := r.ready[i]
		f.ready = false
		if f.held {
			continue // the command that ends it pushes it
		}
		// One that was empty now wakes us when it is written to. One that returned
		// nothing may have been put off until the commands in the queue are carried
		// out; they push it.
		n, more := r.fill(f, readSize, false)
		if taken += n; more {
			r.push(f)
		}
		r.split()
		if r.out.waiting() >= flushSize {
			r.flush(r.out)
		}
	}
	r.ready = slices.Delete(r.ready, 0, i)
}

// finish carries out what is queued and writes what is left, until the
// deadline.
func (r *reader) finish() {
	for {
		r.write()
		r.flush(r.out)
		r.watch()
		if !r.out.blocked && !r.err.blocked {
			return
		}
		left := time.Until(r.deadline)
		if left <= 0 {
			return
		}
		r.wait(int(left.Milliseconds()) + 1)
	}
}
