package logs

import "time"

// Print prints a line of the daemon's own, in the order of calls, aside from
// what children write. It does not wait: when the output is stuck and the
// queue is full the line is dropped and counted. A zero Time is now.
//
// Print, Begin and End with neither a Text nor a Msg print nothing, and do the
// rest.
func (o *Output) Print(r Record) { o.about(verbPrint, r) }

// Flush lets what Hold, Begin, Label, End and Remove asked for be done now. The
// reader goroutine does it at the latest then; a caller that has several things
// to say, and something more urgent to do, wakes it once and last.
func (o *Output) Flush() { o.queue.flush() }

// Hold says that a start of the slot was asked for: what is in its FIFO now
// still belongs to the incarnation before; what comes is not read until Begin,
// Label or End says whose it is. Call it before the child can exist.
func (o *Output) Hold(k Key) { o.about(verbHold, Record{Key: k}) }

// Begin prints r, which says that an incarnation began, and from then on the
// slot's lines under r.PID. Lines that the child wrote before this call come
// after r if Hold was called in time.
func (o *Output) Begin(r Record) { o.about(verbBegin, r) }

// Label is Begin without a line: whose the slot's lines are, for an adopted
// child.
func (o *Output) Label(k Key, pid int, incarnation uint64) {
	o.about(verbLabel, Record{Key: k, PID: pid, Incarnation: incarnation})
}

// End prints what is in the slot's FIFO, ends a partial line, and then prints
// r, which says that an incarnation ended or could not start. A line written
// before this call never comes after r.
func (o *Output) End(r Record) { o.about(verbEnd, r) }

// about sends a command about a FIFO, or just prints the record if there is no
// such FIFO.
func (o *Output) about(v verb, r Record) {
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	o.mu.Lock()
	f := o.byKey[r.Key]
	o.mu.Unlock()
	if f != nil && v != verbPrint {
		o.send(f, command{verb: v, rec: r})
		return
	}
	if v == verbHold || v == verbLabel {
		return
	}
	o.queue.put(command{verb: verbPrint, rec: r})
}

// send queues a command at the present position of f and reports whether it
// was taken.
func (o *Output) send(f *fifo, c command) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fd < 0 {
		return o.queue.put(c)
	}
	f.want(&c)
	c.fifo, c.mark = f, f.position()
	if !o.queue.put(c) {
		o.queue.putStale(f)
		return false
	}
	f.pending++
	return true
}

// want keeps where c leads, in case the queue refuses it. mu is held.
func (f *fifo) want(c *command) {
	switch c.verb {
	case verbHold:
		f.wantHold = true
	case verbBegin, verbLabel:
		f.wantPID, f.wantInc, f.wantHold = c.rec.PID, c.rec.Incarnation, false
	case verbEnd:
		f.wantHold = false
	}
}
