package state

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
)

// The envelope is a fixed head followed by three parts: the header, the
// descriptors and the payload. All numbers of fixed size are big endian.
//
//	offset  bytes
//	0       8     magic
//	8       4     format
//	12      8     length of what follows the head in bytes
//	20      4     CRC-32C of bytes 0 to 19 and of what follows the head
//	24      …     the parts, each after its length as a uvarint: JSON of a Header;
//	              fields, 1 each a File, 2 the leftovers; the payload as it is given
//
// In format 1 it was three lines of JSON: header with descriptors, state, output.
//
// The checksum guards against damage, not against an attacker: the file is
// sealed, or readable and writable by the daemon's user alone.
const (
	magic   = "sentryd\n"
	headLen = len(magic) + 4 + 8 + 4
	sumAt   = headLen - 4
)

// Errors of [Decode]; a caller tells them apart with errors.Is. Whatever the
// error, nothing of the state is usable.
var (
	ErrNotState  = errors.New("not a saved state")
	ErrTruncated = errors.New("saved state is truncated")
	ErrTrailing  = errors.New("saved state has bytes after its end")
	ErrCorrupt   = errors.New("saved state is damaged")
	ErrNewer     = errors.New("saved state is of a newer format")
	ErrOtherBoot = errors.New("saved state is from another boot")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode returns the bytes of s. The boot id is filled in; s is not changed.
func Encode(s *Saved) ([]byte, error) {
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	return encode(s, boot)
}

func encode(s *Saved, boot string) ([]byte, error) {
	h := s.Header
	h.BootID = boot
	head, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	b := make([]byte, headLen, headLen+len(head)+64*len(s.Files)+len(s.Payload)+3*binary.MaxVarintLen64)
	b = appendPart(b, head)
	at := len(b)
	for i := range s.Files {
		b = appendNested(b, 1, func(b []byte) []byte { return appendFile(b, &s.Files[i]) })
	}
	b = appendInts(b, 2, s.Leftovers)
	b = insertLength(b, at)
	b = appendPart(b, s.Payload)

	copy(b, magic)
	binary.BigEndian.PutUint32(b[len(magic):], Format)
	binary.BigEndian.PutUint64(b[len(magic)+4:], uint64(len(b)-headLen))
	binary.BigEndian.PutUint32(b[sumAt:], checksum(b[:sumAt], b[headLen:]))
	return b, nil
}

func appendPart(b, part []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(part)))
	return append(b, part...)
}

func appendFile(b []byte, f *File) []byte {
	b = appendText(b, 1, f.Name)
	return appendInt(b, 2, int64(f.FD))
}

func (x *File) read(f fields) bool {
	for f.next() {
		switch f.num {
		case 1:
			f.string(&x.Name)
		case 2:
			f.int(&x.FD)
		}
	}
	return !f.bad
}

// Decode reads what [Encode] wrote, in the boot that is running now. It never
// panics, and allocates only in proportion to len(data).
func Decode(data []byte) (*Saved, error) {
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	return decode(data, boot)
}

// decode is pure. The format number is judged before the length and the sum,
// which a newer format may have moved.
func decode(data []byte, boot string) (*Saved, error) {
	n := min(len(data), len(magic))
	if string(data[:n]) != magic[:n] {
		return nil, ErrNotState
	}
	if len(data) < headLen {
		return nil, fmt.Errorf("%w: %d bytes, the head alone is %d", ErrTruncated, len(data), headLen)
	}
	format := binary.BigEndian.Uint32(data[len(magic):])
	if format > Format {
		return nil, fmt.Errorf("%w: %d, this program reads up to %d", ErrNewer, format, Format)
	}
	if format == 0 {
		return nil, fmt.Errorf("%w: format 0", ErrCorrupt)
	}
	body := data[headLen:]
	switch want := binary.BigEndian.Uint64(data[len(magic)+4:]); {
	case uint64(len(body)) < want:
		return nil, fmt.Errorf("%w: %d of %d bytes", ErrTruncated, len(body), want)
	case uint64(len(body)) > want:
		return nil, fmt.Errorf("%w: %d instead of %d bytes", ErrTrailing, len(body), want)
	}
	if checksum(data[:sumAt], body) != binary.BigEndian.Uint32(data[sumAt:]) {
		return nil, fmt.Errorf("%w: checksum differs", ErrCorrupt)
	}
	read := readParts
	if format == 1 {
		read = readLines
	}
	s, err := read(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	if s.Header.BootID != boot {
		return nil, fmt.Errorf("%w: %q, this is %q", ErrOtherBoot, s.Header.BootID, boot)
	}
	return s, nil
}

func readParts(body []byte) (*Saved, error) {
	var parts [3][]byte
	for i := range parts {
		n, w := binary.Uvarint(body)
		if w <= 0 || n > uint64(len(body)-w) {
			return nil, fmt.Errorf("part %d is not whole", i)
		}
		parts[i], body = body[w:w+int(n)], body[w+int(n):]
	}
	if len(body) > 0 {
		return nil, errors.New("more than three parts")
	}
	s := &Saved{Payload: parts[2]}
	if err := json.Unmarshal(parts[0], &s.Header); err != nil {
		return nil, err
	}
	files := fields{rest: parts[1]}
	for files.next() {
		switch files.num {
		case 1:
			var x File
			files.bad = !x.read(files.nested())
			s.Files = append(s.Files, x)
		case 2:
			files.ints(&s.Leftovers)
		}
	}
	if files.bad {
		return nil, errors.New("the list of descriptors cannot be read")
	}
	return s, nil
}

// readLines reads format 1.
func readLines(body []byte) (*Saved, error) {
	lines := bytes.Split(body, []byte("\n"))
	if len(lines) != 3 {
		return nil, fmt.Errorf("%d lines instead of 3", len(lines))
	}
	var head struct {
		Header Header `json:"header"`
		Files  []File `json:"files"`
	}
	if err := json.Unmarshal(lines[0], &head); err != nil {
		return nil, err
	}
	return &Saved{Header: head.Header, Files: head.Files, Payload: lines[1], output: lines[2], lines: true}, nil
}

func checksum(head, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, body)
}
