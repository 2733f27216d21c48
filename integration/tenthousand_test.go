package integration

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/sentryd/sentryd/internal/testenv"
)

// TestTenThousand scales an entry to 10,000 processes: the daemon stays below 50
// threads and four descriptors a child, and stops all of them.
func TestTenThousand(t *testing.T) {
	const n = 10000
	testenv.Need(t, testenv.Root(), testenv.Long(), testenv.Descriptors(2.5*n))
	d := startDaemon(t, fmt.Sprintf("entries:\n  a: {command: %s, count: 0}\n", waiter(t)), options{})
	before := len(openFiles(t, d.pid))
	begin := time.Now()
	if status, answer := d.post("/v1/entries/a/scale?wait="+patience.String(), fmt.Sprintf(`{"count": %d}`, n)); status != 200 {
		t.Fatalf("scale: %d %.1000s", status, answer)
	}
	started := time.Since(begin)
	s := d.state()
	checkCounters(t, s)
	if e := s.entry("a"); e.Running != n || e.Starts != n || e.Exits != 0 {
		t.Errorf("%d running, %d starts, %d exits", e.Running, e.Starts, e.Exits)
	}
	if got := threads(t, d.pid); got >= 50 {
		t.Errorf("%d threads", got)
	}
	files := len(openFiles(t, d.pid)) - before
	if files >= 4*n {
		t.Errorf("%d descriptors for %d children", files, n)
	}
	began := time.Now()
	d.stop()
	t.Logf("started in %v, stopped in %v; %d descriptors more than without children", started, time.Since(began), files)
}

func openFiles(t *testing.T, pid int) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// waiter writes the smallest program that waits for a signal, and returns its
// path: 10,000 of any other would need more memory than a test may take.
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
