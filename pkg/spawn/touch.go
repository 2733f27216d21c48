package spawn

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A child between clone and execve can not be helped: if the program, its
// interpreter or the directory is on a file system that hangs, so does it. So
// all of them are touched first, by ordinary system calls, under a deadline.

// interpCache remembers which interpreter a file names, and which files
// answered lately.
type interpCache struct {
	mu       sync.Mutex
	interps  map[interpKey]string
	answered map[string]time.Duration // when, on the Pool's clock
}

// freshFor is how long a file that answered need not be touched again. If its
// file system hangs meanwhile, so does the child, and overdue ends that.
const freshFor = time.Second

// fresh reports whether path need not be touched.
func (c *interpCache) fresh(path string, now time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.answered[path]
	return ok && now-at < freshFor
}

func (c *interpCache) answer(path string, now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answered == nil || len(c.answered) >= maxInterps {
		c.answered = make(map[string]time.Duration)
	}
	c.answered[path] = now
}

// interpKey changes when the file does.
type interpKey struct {
	dev, ino     uint64
	mtime, ctime unix.Timespec
}

// maxInterps bounds each map of the cache; what is in it can be found again.
const maxInterps = 1024

// maxInterpDepth is how deep Linux follows scripts that name scripts (exec_binprm).
const maxInterpDepth = 5

// touchFile looks at path, reads its first bytes, and does the same with the
// interpreter that they name. Errors are left to execve, which says the same.
// Nothing but a regular file is opened: opening a device can have effects, and
// opening a FIFO waits.
//
// It returns an interpreter that does not exist.
func (p *Pool) touchFile(path string) (missing string) {
	now, _ := p.clock.Now()
	if !p.fork && p.interps.fresh(path, now) {
		return ""
	}
	program := path
	for i := range maxInterpDepth {
		interp, err := p.interps.touch(path)
		if err == unix.ENOENT && i > 0 {
			return path
		}
		if interp == "" || interp[0] != '/' { // a relative one is the child's business
			break
		}
		path = interp
	}
	p.interps.answer(program, now)
	return ""
}

// touch returns the interpreter of path, "" if there is none.
func (c *interpCache) touch(path string) (interp string, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	// As much as execve(2) reads before it knows what the file is.
	var head [256]byte
	n, err := unix.Pread(fd, head[:], 0)
	if err != nil {
		return "", err
	}
	key := interpKey{dev: uint64(st.Dev), ino: st.Ino, mtime: st.Mtim, ctime: st.Ctim}
	c.mu.Lock()
	interp, ok := c.interps[key]
	c.mu.Unlock()
	if ok {
		return interp, nil
	}
	interp = interpreter(fdReader(fd), head[:n])
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.interps == nil || len(c.interps) >= maxInterps {
		c.interps = make(map[interpKey]string)
	}
	c.interps[key] = interp
	return interp, nil
}

// interpreter returns the interpreter that a file names: the word after "#!",
// or the PT_INTERP segment of an ELF file; "" if there is none. head is how the file begins.
func interpreter(file io.ReaderAt, head []byte) string {
	if rest, ok := bytes.CutPrefix(head, []byte("#!")); ok {
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		word := bytes.TrimLeft(line, " \t")
		if i := bytes.IndexAny(word, " \t\x00"); i >= 0 {
			word = word[:i]
		}
		return string(word)
	}
	if !bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		return ""
	}
	return elfInterp(file, head)
}

// elfInterp reads PT_INTERP. Only little-endian 64-bit files are looked into;
// the machines that this runs on execute hardly anything else.
func elfInterp(file io.ReaderAt, head []byte) string {
	const headerSize, progSize = 64, 56
	if len(head) < headerSize || head[elf.EI_CLASS] != byte(elf.ELFCLASS64) || head[elf.EI_DATA] != byte(elf.ELFDATA2LSB) {
		return ""
	}
	le := binary.LittleEndian
	off, size, num := le.Uint64(head[32:]), le.Uint16(head[54:]), le.Uint16(head[56:])
	if size != progSize || num > 128 || off > 1<<40 {
		return ""
	}
	progs := make([]byte, int(num)*progSize)
	if _, err := file.ReadAt(progs, int64(off)); err != nil {
		return ""
	}
	for ; len(progs) > 0; progs = progs[progSize:] {
		if elf.ProgType(le.Uint32(progs)) != elf.PT_INTERP {
			continue
		}
		off, size := le.Uint64(progs[8:]), le.Uint64(progs[32:])
		if off > 1<<40 || size == 0 || size > unix.PathMax {
			return ""
		}
		path := make([]byte, size)
		if _, err := file.ReadAt(path, int64(off)); err != nil {
			return ""
		}
		path, _, _ = bytes.Cut(path, []byte{0})
		return string(path)
	}
	return ""
}

// fdReader reads a file by its descriptor.
type fdReader int

// ReadAt implements io.ReaderAt.
func (fd fdReader) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) {
		m, err := unix.Pread(int(fd), b[n:], off+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, err
		}
		if m == 0 {
			return n, io.EOF
		}
		n += m
	}
	return n, nil
}
