package logs

// commands carries out what is queued and reports whether all of it was; it
// was not if the output would have had to wait.
func (r *reader) commands() bool {
	if r.next == len(r.batch) {
		if !r.recover() { // of what was refused behind this batch
			return false
		}
		clear(r.batch) // let go of the strings
		var refused uint64
		r.batch, r.stale, refused = r.o.queue.take(r.batch)
		r.next = 0
		r.refused += refused
		r.o.dropped.Add(refused)
	}
	for r.next < len(r.batch) {
		if !r.command(&r.batch[r.next]) {
			return false
		}
		r.next++
		if r.out.waiting() >= flushSize {
			r.flush(r.out)
			if r.out.blocked {
				return false
			}
		}
	}
	return r.recover()
}

// recover applies what the queue refused, and says what was lost. It returns false,
// to be called again, if the output would have had to wait.
func (r *reader) recover() bool {
	for ; len(r.stale) > 0; r.stale = r.stale[1:] {
		f := r.stale[0]
		f.mu.Lock()
		pid, incarnation, hold := f.wantPID, f.wantInc, f.wantHold
		f.stale = false
		f.mu.Unlock()
		if !f.label.is(pid, incarnation) && !r.endLine(f) {
			return false
		}
		r.relabel(f, pid, incarnation)
		f.held = hold
		r.push(f)
	}
	if r.refused > 0 {
		r.say("lines of its own while its output was stuck", r.refused, nil)
		r.refused = 0
	}
	return true
}

// command carries out c. It returns false, to be called again with c later, if
// the output would have had to wait.
func (r *reader) command(c *command) bool {
	f := c.fifo
	if f == nil {
		if c.verb == verbRaw {
			r.out.buf = append(r.out.buf, c.rec.Text...)
		} else if c.verb != verbHold && c.verb != verbLabel && c.verb != verbRemove {
			r.own(c)
		}
		return true
	}
	if !f.held || c.verb == verbEnd || c.verb == verbRemove {
		// While held, what is there belongs to the incarnation that begins.
		if !r.drain(f, c.mark) {
			return false
		}
	}
	same := (c.verb == verbBegin || c.verb == verbLabel) && f.label.is(c.rec.PID, c.rec.Incarnation)
	if !same && !r.endLine(f) {
		return false
	}
	switch c.verb {
	case verbHold:
		f.held = true
	case verbBegin:
		r.own(c)
		fallthrough
	case verbLabel:
		r.relabel(f, c.rec.PID, c.rec.Incarnation)
		f.held = false
	case verbEnd:
		r.own(c)
		f.held = false
	case verbRemove:
		f.close(r.o.epfd)
	}
	f.settled()
	r.push(f)
	return true
}

// own prints the record of c, if it says anything.
func (r *reader) own(c *command) {
	if c.rec.Words != nil {
		c.rec.Words(&c.rec)
	}
	if c.rec.Text != "" || c.rec.Msg != "" {
		r.out.buf = r.format.own(r.out.buf, &c.rec)
	}
}

// relabel changes whose the lines of f are.
func (r *reader) relabel(f *fifo, pid int, incarnation uint64) {
	if !f.label.is(pid, incarnation) {
		f.label = r.format.label(f.key, pid, incarnation)
	}
}

// drain reads f up to mark and no further. It returns false if the output
// would have had to wait.
func (r *reader) drain(f *fifo, mark uint64) bool {
	for {
		missing := f.missing(mark)
		if missing == 0 || r.absorbing && r.out.waiting() > maxQueuedBytes {
			return true
		}
		n, _ := r.fill(f, int(min(missing, readSize)), true)
		if n == 0 {
			return true // the child has read its own output
		}
		if !r.split() {
			return false
		}
	}
}
