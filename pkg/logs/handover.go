package logs

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Handover is all that an Output holds, for the next image of the daemon to go
// on with after execve(2): no byte that a child wrote is lost or printed twice.
// It is data only and may be encoded.
type Handover struct {
	FIFOs   []HandoverFIFO
	Entries map[string]Counts
	Dropped uint64
	// Out and Err are bytes that were not yet written.
	Out, Err []byte
}

// HandoverFIFO is one FIFO in a Handover.
type HandoverFIFO struct {
	Key         Key
	FD          int // close-on-exec is set: clear it before execve; -1: there is none
	PID         int
	Incarnation uint64
	Held        bool // between Hold and Begin
	// Partial is what was read and is not printed: the beginning of a line, mostly.
	Partial []byte
}

// pauseGrace is how long Pause goes on writing. A healthy output takes all
// that may wait in a fraction of it; a stuck one will not after more of it.
const pauseGrace = 50 * time.Millisecond

// Pause stops reading and writing and returns everything that the next image
// needs. It takes up to 100 ms when the output is stuck, else as long as it
// takes to write what is queued. Lines printed after it are kept for Resume,
// and lost with execve. While a write to a file system that hangs holds it up
// Pause fails, and nothing has changed; execve(2) could not end that thread
// either.
func (o *Output) Pause() (*Handover, error) {
	o.life.Lock()
	defer o.life.Unlock()
	if err := o.usable(); err != nil {
		return nil, err
	}
	if !o.reader.halt(pauseGrace) {
		o.setState(stuck)
		go o.resumeLater()
		return nil, errStuck
	}
	o.setState(paused)
	o.reader.absorb()
	return o.handover(), nil
}

// resumeLater lets the reader go on once the write that holds it up returns.
func (o *Output) resumeLater() {
	<-o.reader.finished
	o.life.Lock()
	defer o.life.Unlock()
	if o.getState() == stuck {
		o.resume()
	}
}

// Resume goes on after a Pause, when execve has failed.
func (o *Output) Resume() {
	o.life.Lock()
	defer o.life.Unlock()
	if o.getState() == paused {
		o.resume()
	}
}

// resume starts the reader again. Events that it had taken are in reader.ready,
// the others still in the epoll set. life is held.
func (o *Output) resume() {
	o.setState(running)
	o.reader.start()
}

// usable says why the reader cannot be stopped now.
func (o *Output) usable() error {
	switch o.getState() {
	case running:
		return nil
	case paused:
		return errors.New("logs: output is paused")
	case stuck:
		return errStuck
	}
	return errClosed
}

func (o *Output) getState() lifecycle {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state
}

func (o *Output) setState(s lifecycle) {
	o.mu.Lock()
	o.state = s
	o.mu.Unlock()
}

// absorb carries out what is queued and keeps the output in memory. When that
// is more than the queue may hold, FIFOs are not read any more: a line may
// then come under the label of the incarnation after it.
func (r *reader) absorb() {
	r.absorbing, r.out.blocked = true, false
	defer func() { r.absorbing = false }()
	for {
		r.work()
		if r.next == len(r.batch) && r.o.queue.empty() {
			break
		}
	}
	r.err.buf = r.o.diag.take(r.err.buf, r.err.waiting())
}

// handover copies the state. The reader does not run.
func (o *Output) handover() *Handover {
	o.mu.Lock()
	defer o.mu.Unlock()
	h := &Handover{
		Entries: make(map[string]Counts, len(o.entries)),
		Dropped: o.dropped.Load(),
		Out:     o.reader.out.unwritten(),
		Err:     o.reader.err.unwritten(),
	}
	for name, c := range o.entries {
		h.Entries[name] = Counts{Bytes: c.bytes.Load(), Lines: c.lines.Load()}
	}
	for _, f := range o.byKey {
		if f.old != nil {
			h.FIFOs = append(h.FIFOs, f.old.handover())
		}
		h.FIFOs = append(h.FIFOs, f.handover())
	}
	for _, f := range o.orphans {
		h.FIFOs = append(h.FIFOs, f.handover())
	}
	return h
}

func (f *fifo) handover() HandoverFIFO {
	return HandoverFIFO{
		Key: f.key, FD: f.fd,
		PID: f.label.pid, Incarnation: f.label.incarnation, Held: f.held,
		Partial: append([]byte(nil), f.partial...),
	}
}

// restore takes over what the image before handed on. The reader does not run
// yet. life and mu are held.
func (o *Output) restore(h *Handover) {
	o.dropped.Store(h.Dropped)
	o.reader.out.buf = append(o.reader.out.buf, h.Out...)
	o.reader.out.commit()
	o.reader.err.buf = append(o.reader.err.buf, h.Err...)
	for name, c := range h.Entries {
		o.reader.backlog.count(o.counts(name), c.Bytes, c.Lines)
	}
	for i := range h.FIFOs {
		if err := o.restoreFIFO(&h.FIFOs[i]); err != nil {
			o.logger.Error("a log pipe was not handed over", "entry", h.FIFOs[i].Key.Entry, "slot", h.FIFOs[i].Key.Slot, "error", err)
		}
	}
}

// restoreFIFO takes over one FIFO. What was read of it goes on if it cannot be. mu is
// held.
func (o *Output) restoreFIFO(h *HandoverFIFO) error {
	if err := h.Key.valid(); err != nil {
		return err
	}
	f, err := o.inherit(h)
	if f == nil {
		if len(h.Partial) == 0 {
			return err
		}
		f = o.orphan(h.Key)
	}
	f.wantPID, f.wantInc = h.PID, h.Incarnation
	f.held = h.Held && f.fd >= 0
	f.wantHold = f.held
	f.label = o.reader.format.label(h.Key, h.PID, h.Incarnation)
	f.partial = h.Partial
	if keepErr := o.reader.backlog.keep(f, f.partial); keepErr != nil {
		o.logger.Warn("what was read of a log pipe is lost if this daemon is killed before the end of the line", "entry", h.Key.Entry, "slot", h.Key.Slot, "error", keepErr)
	}
	if len(f.partial) > 0 {
		o.reader.unfed = append(o.reader.unfed, f)
	}
	return err
}

// inherit takes over a descriptor. It returns nil if there is none. mu is held.
func (o *Output) inherit(h *HandoverFIFO) (*fifo, error) {
	if h.FD < 0 {
		return nil, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(h.FD, &st); err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", h.FD, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil, fmt.Errorf("descriptor %d: is a %s, not a FIFO", h.FD, fileType(st.Mode))
	}
	unix.CloseOnExec(h.FD)
	return o.adopt(h.Key, h.FD, int(st.Uid), h.PID, h.Incarnation)
}

// orphan is what was read of a FIFO that is not open: it goes on when it is, and
// ends with Sweep otherwise. mu is held.
func (o *Output) orphan(k Key) *fifo {
	f := o.newFIFO(k)
	o.orphans = append(o.orphans, f)
	return f
}

// Close carries out what was asked for, and writes what there is for up to timeout.
// The error says that not all was written. FIFOs stay where they are, with what is
// in them, for the next daemon, and so do the beginnings of lines, and what was not
// written. Records printed later are dropped.
func (o *Output) Close(timeout time.Duration) error {
	o.life.Lock()
	defer o.life.Unlock()
	r := o.reader
	deadline := time.Now().Add(timeout)
	switch o.getState() {
	case closed:
		return errClosed
	case running:
		if !r.halt(timeout) {
			o.setState(closed)
			o.queue.close()
			return errStuck
		}
	case stuck:
		o.setState(closed)
		o.queue.close()
		return errStuck
	}
	o.setState(closed)
	r.absorb()
	r.deadline = deadline
	r.finish()
	left := r.out.waiting() + r.err.waiting()
	if r.out.waiting() == 0 && !o.halfway() {
		removeBacklog(o.dir)
	}
	o.closeAll()
	if left > 0 {
		return fmt.Errorf("logs: %d bytes of output were not written in %v", left, timeout)
	}
	return nil
}

// EpollSet returns the descriptor of the set that the FIFOs are read from, which is the
// Output's and close-on-exec. The next image has one of its own, and closes this one, which takes
// milliseconds with thousands of FIFOs, when it has the time.
func (o *Output) EpollSet() int { return o.epfd }

// halfway reports whether a line has begun and not ended.
func (o *Output) halfway() bool {
	some := func(f *fifo) bool { return len(f.partial) > 0 }
	return slices.ContainsFunc(o.orphans, some) || slices.ContainsFunc(slices.Collect(maps.Values(o.byID)), some)
}

// closeAll closes every descriptor.
func (o *Output) closeAll() {
	for _, f := range o.byID {
		f.close(o.epfd)
	}
	if o.reader != nil {
		o.reader.out.close()
		o.reader.err.close()
		if o.reader.backlog != nil {
			o.reader.backlog.close()
		}
	}
	o.queue.close()
	if o.poller != nil {
		o.poller.close()
	}
	if o.epfd >= 0 {
		unix.Close(o.epfd)
	}
	o.dir.close()
}
