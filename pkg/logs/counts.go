package logs

import (
	"encoding/binary"
	"sync/atomic"
)

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

// counts are the counters of an entry, shared by its FIFOs. The reader goroutine
// alone adds to them: first in the backlog, so that what somebody has seen is not
// taken back by a death.
type counts struct {
	entry        string
	bytes, lines atomic.Uint64
	block        atomic.Uint32 // where the backlog keeps them, one more than its number; 0: nowhere
}

// A block of counts has this in the place of the id of a FIFO.
const (
	countsID   = 1 // which the output has in the epoll set, and no FIFO
	countBytes = 16
	countLines = 24
	countName  = 32
)

// count adds to the counters of an entry.
func (b *backlog) count(c *counts, bytes, lines uint64) {
	bytes, lines = c.bytes.Load()+bytes, c.lines.Load()+lines
	if b.fd >= 0 && c.block.Load() == 0 {
		b.keepCounts(c, bytes, lines)
	}
	if n := c.block.Load(); n > 0 {
		at := blocksAt + int(n-1)*blockSize
		b.word(at + countBytes).Store(bytes)
		b.word(at + countLines).Store(lines)
	}
	c.bytes.Store(bytes)
	c.lines.Store(lines)
}

// keepCounts takes a block for the counters of an entry. Without one they begin anew
// after a death.
func (b *backlog) keepCounts(c *counts, bytes, lines uint64) {
	at, err := b.take()
	if err != nil {
		return
	}
	block := b.block(at)
	binary.NativeEndian.PutUint32(block[blockLen:], uint32(copy(block[countName:], c.entry)))
	binary.NativeEndian.PutUint64(block[countBytes:], bytes)
	binary.NativeEndian.PutUint64(block[countLines:], lines)
	b.word(blocksAt + int(at)*blockSize).Store(countsID)
	c.block.Store(at + 1)
}

// getCounts is what a block of counts says.
func getCounts(block []byte) (entry string, c Counts, ok bool) {
	n := binary.NativeEndian.Uint32(block[blockLen:])
	if n == 0 || n > maxEntry {
		return "", c, false
	}
	c.Bytes, c.Lines = binary.NativeEndian.Uint64(block[countBytes:]), binary.NativeEndian.Uint64(block[countLines:])
	return string(block[countName : countName+n]), c, true
}

// counts returns the counters of an entry. mu is held.
func (o *Output) counts(entry string) *counts {
	c := o.entries[entry]
	if c == nil {
		c = &counts{entry: entry}
		o.entries[entry] = c
	}
	return c
}

// Forget drops the counts of an entry that is no more. Its slots are to be
// removed first.
func (o *Output) Forget(entry string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	// Its block is not given back: the reader may be about to write there.
	if c := o.entries[entry]; c != nil && o.state != closed {
		if n := c.block.Load(); n > 0 {
			o.reader.backlog.word(blocksAt + int(n-1)*blockSize).Store(0)
		}
	}
	delete(o.entries, entry)
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
