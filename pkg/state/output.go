package state

import (
	"maps"
	"slices"
)

// Output is what pkg/logs hands over. Its names in JSON are those of format 1.
type Output struct {
	FIFOs   []FIFO
	Entries map[string]OutputCounts // by entry
	Dropped uint64
	// Out and Err are bytes that were not yet written.
	Out, Err []byte
}

// OutputCounts is what the processes of an entry wrote.
type OutputCounts struct {
	Bytes, Lines uint64
}

// FIFO is one that a slot's processes write to.
type FIFO struct {
	Key         FIFOKey
	FD          int // -1: it is not open
	PID         int
	Incarnation uint64
	Held        bool
	Partial     []byte // what was read and is not printed
}

// FIFOKey says whose a FIFO is.
type FIFOKey struct {
	Entry  string
	Slot   int
	Stream uint8
}

// output records what pkg/logs hands over.
func (b *Batch) output(o *Output) {
	b.record(recOutput, func(buf []byte) []byte { return appendOutput(buf, o) })
	for i := range o.FIFOs {
		b.record(recFIFO, func(buf []byte) []byte { return appendFIFO(buf, &o.FIFOs[i]) })
	}
}

// appendOutput writes all but the FIFOs, which have records of their own.
func appendOutput(b []byte, o *Output) []byte {
	b = appendUint(b, 1, o.Dropped)
	b = appendText(b, 2, o.Out)
	b = appendText(b, 3, o.Err)
	for _, entry := range slices.Sorted(maps.Keys(o.Entries)) {
		b = appendNested(b, 4, func(b []byte) []byte {
			n := o.Entries[entry]
			b = appendText(b, 1, entry)
			b = appendUint(b, 2, n.Bytes)
			return appendUint(b, 3, n.Lines)
		})
	}
	return b
}

func (o *Output) read(f fields) bool {
	for f.next() {
		switch f.num {
		case 1:
			f.uint(&o.Dropped)
		case 2:
			f.bytes(&o.Out)
		case 3:
			f.bytes(&o.Err)
		case 4:
			f.bad = !o.readCounts(f.nested())
		}
	}
	return !f.bad
}

func (o *Output) readCounts(f fields) bool {
	var entry string
	var n OutputCounts
	for f.next() {
		switch f.num {
		case 1:
			f.string(&entry)
		case 2:
			f.uint(&n.Bytes)
		case 3:
			f.uint(&n.Lines)
		}
	}
	if o.Entries == nil {
		o.Entries = make(map[string]OutputCounts)
	}
	o.Entries[entry] = n
	return !f.bad
}

func appendFIFO(b []byte, x *FIFO) []byte {
	b = appendText(b, 1, x.Key.Entry)
	b = appendInt(b, 2, int64(x.Key.Slot))
	b = appendUint(b, 3, uint64(x.Key.Stream))
	b = appendInt(b, 4, int64(x.FD))
	b = appendInt(b, 5, int64(x.PID))
	b = appendUint(b, 6, x.Incarnation)
	b = appendBool(b, 7, x.Held)
	return appendText(b, 8, x.Partial)
}

func (x *FIFO) read(f fields) bool {
	for f.next() {
		switch f.num {
		case 1:
			f.string(&x.Key.Entry)
		case 2:
			f.int(&x.Key.Slot)
		case 3:
			f.byte(&x.Key.Stream)
		case 4:
			f.int(&x.FD)
		case 5:
			f.int(&x.PID)
		case 6:
			f.uint(&x.Incarnation)
		case 7:
			f.bool(&x.Held)
		case 8:
			f.bytes(&x.Partial)
		}
	}
	return !f.bad
}
