package logs

// chunk is what the reader has in hand of one FIFO: the beginning of a line that was
// kept, and what was read behind it.
type chunk struct {
	fifo *fifo  // nil: there is none
	room []byte // all the room there is
	len  int    // of what is in it
	done int    // how much of that was printed
	from int    // up to where there is no newline
	last bool   // what is left at the end is a line, too
	// lines were printed and are not counted yet.
	lines uint64
}

// fill reads up to limit bytes of f into the chunk, and reports how many, and
// whether there is more in f. There is no chunk when it is called.
func (r *reader) fill(f *fifo, limit int, evenIfPending bool) (n int, more bool) {
	have := copy(r.chunk.room, f.partial)
	if n, more = f.read(r.backlog, r.chunk.room, have, limit, evenIfPending); n > 0 {
		r.chunk = chunk{fifo: f, room: r.chunk.room, len: have + n, from: have}
	}
	return n, more
}

// endLine prints a line of f that has no end yet, and reports whether that was
// possible.
func (r *reader) endLine(f *fifo) bool { return r.reprint(f, true) }

// reprint prints what is kept of f, as far as these are lines.
func (r *reader) reprint(f *fifo, last bool) bool {
	if len(f.partial) == 0 {
		return true
	}
	n := copy(r.chunk.room, f.partial)
	r.chunk = chunk{fifo: f, room: r.chunk.room, len: n, last: last}
	r.backlog.took(f, n)
	return r.split()
}

// split prints the lines of the chunk, if there is one, and reports whether it came
// to its end: it does not while the output takes no more.
func (r *reader) split() bool {
	c := &r.chunk
	f := c.fifo
	for f != nil {
		line, used := nextLine(c.room[c.done:c.len], c.from, c.last)
		if used == 0 {
			r.keep()
			break
		}
		if r.out.waiting() >= flushSize || !r.out.fits(len(line)) {
			r.countLines() // before anybody sees them
			// What is absorbed goes beyond the backlog, for a moment.
			if r.flush(r.out); r.out.blocked {
				return false
			}
		}
		c.lines++
		r.out.buf = r.format.line(r.out.buf, &f.label, r.now, line)
		c.done += used
		c.from = max(0, c.from-used)
		r.out.done = c.done
	}
	return true
}

// countLines counts those lines of the chunk that were printed.
func (r *reader) countLines() {
	if c := &r.chunk; c.lines > 0 {
		r.backlog.count(c.fifo.counts, 0, c.lines)
		c.lines = 0
	}
}

// keep ends the chunk: what is left of it is the beginning of a line.
func (r *reader) keep() {
	c := &r.chunk
	f, rest := c.fifo, c.room[c.done:c.len]
	r.countLines()
	r.out.commit()
	if err := r.backlog.keep(f, rest); err != nil && !r.unkept {
		r.unkept = true
		r.o.logger.Warn("the beginning of a line is lost if this daemon is killed before its end", "entry", f.key.Entry, "slot", f.key.Slot, "error", err)
	}
	r.out.finish()
	// The memory of a long line is given back, so that ten thousand children which
	// once wrote one do not hold it for ever.
	if len(rest) == 0 && cap(f.partial) > 1<<10 {
		f.partial = nil
	}
	f.partial = append(f.partial[:0], rest...)
	*c = chunk{room: c.room}
}
