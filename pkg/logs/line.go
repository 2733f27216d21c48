package logs

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// maxLine is the longest line, in bytes as written by the child, that is
// passed on in one piece.
const maxLine = 64 << 10

// nextLine returns the line that text begins with, without its end, and how much of
// text that is; nothing when the line may go on. The first from bytes have no
// newline. A line that is too long comes in pieces, cut between characters. last
// says that nothing comes behind text, so that what is left there is a line, too.
func nextLine(text []byte, from int, last bool) (line []byte, used int) {
	if i := bytes.IndexByte(text[from:], '\n'); i >= 0 {
		line, used = bytes.TrimSuffix(text[:from+i], []byte{'\r'}), from+i+1
	} else if len(text) > maxLine+1 || last {
		// One byte more than a line is waited for: it may be the CR of a CRLF.
		line, used = bytes.TrimSuffix(text, []byte{'\r'}), len(text)
		if len(text) > maxLine+1 {
			line = text
		}
	}
	if len(line) > maxLine {
		n := cut(line, maxLine)
		return line[:n], n
	}
	return line, used
}

// cut returns the largest length up to n at which b can be cut without
// dividing a character, or n if b is not UTF-8 there. len(b) must exceed n.
func cut(b []byte, n int) int {
	for i := n; i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			return i
		}
	}
	return n
}

const hexDigits = "0123456789abcdef"

// appendSafe appends text to dst so that it stays one line, moves no cursor
// and is valid UTF-8. Escaped are: C0 but TAB, DEL and bytes that are no UTF-8
// as \xNN; C1, the line and paragraph separators and the characters that turn
// the direction of writing as \uNNNN. A backslash stays as it is: the form is
// for reading, not for parsing back.
func appendSafe(dst, text []byte) []byte {
	for len(text) > 0 {
		n := plain(text)
		dst = append(dst, text[:n]...)
		text = text[n:]
		if len(text) == 0 {
			break
		}
		c := text[0]
		if c < utf8.RuneSelf {
			if c == '\t' {
				dst = append(dst, c)
			} else {
				dst = append(dst, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
			}
			text = text[1:]
			continue
		}
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
		case moves(r):
			dst = append(dst, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
		default:
			dst = append(dst, text[:size]...)
		}
		text = text[size:]
	}
	return dst
}

// moves reports whether a terminal or a viewer may begin a new line, move the
// cursor or change the order of what is shown on account of r.
func moves(r rune) bool {
	return r >= 0x80 && r <= 0x9f || // C1
		r >= 0x2028 && r <= 0x202e || // separators, embeddings and overrides
		r >= 0x2066 && r <= 0x2069 // isolates
}

// plain returns the length of the longest prefix of b that is printable ASCII.
// It looks at eight bytes at a time: nearly all output is nothing else.
func plain(b []byte) int {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	i := 0
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		// The high bit of a byte is set if the byte is >= 0x80, if adding one
		// carries into it (0x7f), or if taking 0x20 away borrows (< 0x20). A
		// carry or borrow from a neighbour can only make it too careful.
		if (w|(w+ones)|(w-0x20*ones))&highs != 0 {
			break
		}
	}
	for ; i < len(b); i++ {
		if b[i] < 0x20 || b[i] >= 0x7f {
			break
		}
	}
	return i
}
