package state

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
)

// The envelope is a fixed head followed by three lines of JSON: the header with
// the descriptors, the payload and the output. They are apart because wrapping
// one in another would have each read and checked as often as it is wrapped,
// while nobody answers requests. All numbers are big endian.
//
//	offset  bytes
//	0       8     magic
//	8       4     format
//	12      8     length of the lines in bytes
//	20      4     CRC-32C of bytes 0 to 19 and of the lines
//	24      …     the lines, separated by a newline
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
	c := *s
	c.Header.BootID = boot
	head, err := json.Marshal(&c)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	lines := [][]byte{head, orNull(s.Payload), orNull(s.Output)}
	for _, line := range lines {
		if bytes.IndexByte(line, '\n') >= 0 {
			return nil, errors.New("encode state: a line of JSON has a newline in it")
		}
	}
	body := bytes.Join(lines, []byte("\n"))
	b := make([]byte, 0, headLen+len(body))
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint32(b, Format)
	b = binary.BigEndian.AppendUint64(b, uint64(len(body)))
	b = binary.BigEndian.AppendUint32(b, checksum(b, body))
	return append(b, body...), nil
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
	lines := bytes.Split(body, []byte("\n"))
	if len(lines) != 3 {
		return nil, fmt.Errorf("%w: %d lines instead of 3", ErrCorrupt, len(lines))
	}
	s := &Saved{Payload: lines[1], Output: lines[2]}
	if err := json.Unmarshal(lines[0], s); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	if s.Header.BootID != boot {
		return nil, fmt.Errorf("%w: %q, this is %q", ErrOtherBoot, s.Header.BootID, boot)
	}
	return s, nil
}

func orNull(line []byte) []byte {
	if len(line) == 0 {
		return []byte("null")
	}
	return line
}

func checksum(head, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, body)
}
