package state

import "encoding/binary"

// The records of the journal are written in fields: a number, a kind, a value,
// and none for a zero value. A reader skips numbers it does not know, so that
// fields are added as to JSON, at a tenth of its cost. A number is never used
// for anything else again.
//
// A field is a uvarint, number<<1|kind, and then by kind:
const (
	wireInt   = 0 // a uvarint; signed values are zigzag encoded
	wireBytes = 1 // a uvarint and as many bytes: text, a record, packed integers
)

// Not inlined: a record has dozens of fields, and is written between an exit and the
// start that follows, when no cache has the code.
//
//go:noinline
func appendUint(b []byte, field int, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = append(b, byte(field<<1|wireInt)) // field numbers are below 64
	return binary.AppendUvarint(b, v)
}

func appendInt(b []byte, field int, v int64) []byte { return appendUint(b, field, zigzag(v)) }

//go:noinline
func appendBool(b []byte, field int, v bool) []byte {
	if v {
		return append(b, byte(field<<1|wireInt), 1)
	}
	return b
}

// appendPtr tells nil, which is no field, from 0.
func appendPtr(b []byte, field int, v *int64) []byte {
	if v == nil {
		return b
	}
	b = append(b, byte(field<<1|wireInt))
	return binary.AppendUvarint(b, zigzag(*v))
}

//go:noinline
func appendText[T string | []byte](b []byte, field int, v T) []byte {
	if len(v) == 0 {
		return b
	}
	b = append(b, byte(field<<1|wireBytes))
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// appendNested appends what write appends as the value of a field, also when
// that is nothing.
func appendNested(b []byte, field int, write func(b []byte) []byte) []byte {
	b = append(b, byte(field<<1|wireBytes))
	at := len(b)
	b = write(b)
	return insertLength(b, at)
}

// insertLength puts the length of b[at:] before it.
func insertLength(b []byte, at int) []byte {
	n := len(b) - at
	var room [binary.MaxVarintLen64]byte
	w := binary.PutUvarint(room[:], uint64(n))
	b = append(b, room[:w]...)
	copy(b[at+w:], b[at:at+n])
	copy(b[at:], room[:w])
	return b
}

func appendUints(b []byte, field int, v []uint64) []byte {
	if len(v) == 0 {
		return b
	}
	return appendNested(b, field, func(b []byte) []byte {
		for _, x := range v {
			b = binary.AppendUvarint(b, x)
		}
		return b
	})
}

func appendInts[T int | int64](b []byte, field int, v []T) []byte {
	if len(v) == 0 {
		return b
	}
	return appendNested(b, field, func(b []byte) []byte {
		for _, x := range v {
			b = binary.AppendUvarint(b, zigzag(int64(x)))
		}
		return b
	})
}

func zigzag(v int64) uint64   { return uint64(v)<<1 ^ uint64(v>>63) }
func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

// fields reads what the functions above wrote. Once something does not fit it
// is bad, and there is no next field.
type fields struct {
	rest []byte
	bad  bool

	// The present field.
	num  int
	kind int
	val  uint64
	text []byte
}

func (f *fields) next() bool {
	if f.bad || len(f.rest) == 0 {
		return false
	}
	tag := f.uvarint()
	f.num, f.kind, f.val, f.text = int(tag>>1), int(tag&1), 0, nil
	if f.bad || tag>>1 > 1<<20 {
		f.bad = true
		return false
	}
	f.val = f.uvarint()
	if f.kind == wireBytes && !f.bad {
		if f.val > uint64(len(f.rest)) {
			f.bad = true
			return false
		}
		f.text, f.rest = f.rest[:f.val:f.val], f.rest[f.val:]
	}
	return !f.bad
}

func (f *fields) uvarint() uint64 {
	v, n := binary.Uvarint(f.rest)
	if n <= 0 {
		f.bad = true
		return 0
	}
	f.rest = f.rest[n:]
	return v
}

// want reports that the present field is of that kind, or makes f bad.
func (f *fields) want(kind int) bool {
	f.bad = f.bad || f.kind != kind
	return !f.bad
}

func (f *fields) uint(to *uint64) {
	if f.want(wireInt) {
		*to = f.val
	}
}

func (f *fields) int64(to *int64) {
	if f.want(wireInt) {
		*to = unzigzag(f.val)
	}
}

func (f *fields) int(to *int) {
	if f.want(wireInt) {
		*to = int(unzigzag(f.val))
	}
}

func (f *fields) byte(to *uint8) {
	if f.want(wireInt) {
		*to = uint8(f.val)
		f.bad = f.val > 255
	}
}

func (f *fields) bool(to *bool) {
	if f.want(wireInt) {
		*to = f.val != 0
	}
}

func (f *fields) ptr(to **int64) {
	if f.want(wireInt) {
		v := unzigzag(f.val)
		*to = &v
	}
}

func (f *fields) string(to *string) {
	if f.want(wireBytes) {
		*to = string(f.text)
	}
}

func (f *fields) bytes(to *[]byte) {
	if f.want(wireBytes) {
		*to = append([]byte(nil), f.text...)
	}
}

func (f *fields) uints(to *[]uint64) {
	for sub := f.nested(); len(sub.rest) > 0 && !f.bad; f.bad = sub.bad {
		*to = append(*to, sub.uvarint())
	}
}

func (f *fields) ints(to *[]int)     { readInts(f, to) }
func (f *fields) ints64(to *[]int64) { readInts(f, to) }

func readInts[T int | int64](f *fields, to *[]T) {
	for sub := f.nested(); len(sub.rest) > 0 && !f.bad; f.bad = sub.bad {
		*to = append(*to, T(unzigzag(sub.uvarint())))
	}
}

// nested returns the fields of a record in the present field.
func (f *fields) nested() fields {
	if !f.want(wireBytes) {
		return fields{bad: true}
	}
	return fields{rest: f.text}
}
