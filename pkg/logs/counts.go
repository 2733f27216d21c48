package logs

import "sync/atomic"

// Counts is what children of one entry wrote so far.
type Counts struct {
	Bytes uint64 // as written by the children
	Lines uint64 // as printed; a line longer than 64 KiB counts once for each piece
}

// Stats counts what this package did since it began, re-execs included.
type Stats struct {
	// Dropped is the number of lines, children's and the daemon's own, that
	// were lost because the output failed or was stuck for too long.
	Dropped uint64
}

// counts are the counters of an entry, shared by its FIFOs.
type counts struct {
	bytes, lines atomic.Uint64
}

// counts returns the counters of an entry. mu is held.
func (o *Output) counts(entry string) *counts {
	c := o.entries[entry]
	if c == nil {
		c = new(counts)
		o.entries[entry] = c
	}
	return c
}

// Forget drops the counts of an entry that is no more. Its slots are to be
// removed first.
func (o *Output) Forget(entry string) {
	o.mu.Lock()
	delete(o.entries, entry)
	o.mu.Unlock()
}

// Counts returns what the children of an entry wrote so far. It may be called
// at any rate, from anywhere.
func (o *Output) Counts(entry string) Counts {
	o.mu.Lock()
	c := o.entries[entry]
	o.mu.Unlock()
	if c == nil {
		return Counts{}
	}
	return Counts{Bytes: c.bytes.Load(), Lines: c.lines.Load()}
}

// Stats returns the totals.
func (o *Output) Stats() Stats { return Stats{Dropped: o.dropped.Load()} }
