package integration

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// waiter writes the smallest program that waits for a signal, and returns its
// path: no loader opens a library for it, and 10,000 of it fit into a small machine.
func waiter(t *testing.T) string {
	t.Helper()
	code, machine := []byte(nil), uint16(0)
	switch runtime.GOARCH {
	case "amd64":
		code, machine = []byte{0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7}, 62 // mov eax, 34 (pause); syscall; jmp
	case "arm64":
		code, machine = []byte{ // ppoll of nothing
			0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2, // mov x0..x3, 0
			0x28, 0x09, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xfa, 0xff, 0xff, 0x17, // mov x8, 73; svc 0; b -24
		}, 183
	default:
		t.Skip("needs machine code for " + runtime.GOARCH)
	}
	// See elf(5): a header, one segment that is the whole file, the code.
	const base, header = 0x400000, 64 + 56
	le := binary.LittleEndian
	b := append([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, make([]byte, 9)...)
	for _, half := range []uint16{2, machine, 1, 0} { // ET_EXEC, machine, version (a word)
		b = le.AppendUint16(b, half)
	}
	for _, word := range []uint64{base + header, 64, 0} { // entry, program headers, sections
		b = le.AppendUint64(b, word)
	}
	for _, half := range []uint16{0, 0, 64, 56, 1, 64, 0, 0} { // flags (a word), sizes and numbers of headers
		b = le.AppendUint16(b, half)
	}
	b = le.AppendUint64(b, 1|5<<32) // PT_LOAD, read and execute
	size := uint64(header + len(code))
	for _, word := range []uint64{0, base, base, size, size, 0x1000} { // offset, addresses, sizes, alignment
		b = le.AppendUint64(b, word)
	}
	path := filepath.Join(t.TempDir(), "waiter")
	if err := os.WriteFile(path, append(b, code...), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
