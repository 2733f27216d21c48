package logs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file reads the backlog of a daemon that died. What comes of it is what a
// living one would have handed over.

// maxBacklog is more than a backlog may have.
const maxBacklog = mappedSize

// recoverBacklog returns what the daemon before had in hand when it died, or nil if
// there is nothing. out is where the lines go: if they went to the same file it
// tells how much of them is there already.
func recoverBacklog(dir *directory, boot string, out *os.File) (*Handover, error) {
	mem, err := readBacklog(dir)
	if err != nil || mem == nil {
		return nil, err
	}
	head := func(at int) uint64 { return (*atomic.Uint64)(unsafe.Pointer(&mem[at])).Load() }
	if magic := head(atMagic); magic != backlogMagic {
		return nil, fmt.Errorf("%s: of another format (%#x): what the daemon before had read and not printed is lost", dir.name(backlogFile), magic)
	}
	if string(bytes.TrimRight(mem[atBoot:atBoot+40], "\x00")) != boot {
		return nil, nil // the FIFOs that it goes with are no more
	}
	h := new(Handover)
	progress := head(atProgress)
	length, done := int(progress>>32), int(uint32(progress))
	written := int(head(atWritten))
	if length > linesSize {
		return nil, fmt.Errorf("%s: %d bytes of lines: is damaged", dir.name(backlogFile), length)
	}
	if written < length {
		lines := mem[linesAt : linesAt+length]
		if head(atWriting) == 1 {
			w := begun{dev: head(atDev), ino: head(atIno), pos: int64(head(atPos))}
			if from := int(head(atFrom)); from <= length {
				written = max(written, from+w.arrived(out, lines[from:]))
			}
		}
		h.Out = append(h.Out, lines[written:]...)
	}
	kept := keptOf(mem)
	chunk, ok := chunkOf(mem, head(atChunk))
	if whose, known := getOwner(mem[atOwner:headSize]); ok && known {
		delete(kept, whose.id)
		whose.of.Partial = slices.Clone(chunk[min(done, len(chunk)):])
		kept[whose.id] = whose.of
	}
	h.Entries = countsOf(mem)
	for _, id := range slices.Sorted(maps.Keys(kept)) { // of two of a key, the later is the one that goes on
		if f := kept[id]; len(f.Partial) > 0 {
			h.FIFOs = append(h.FIFOs, f)
		}
	}
	return h, nil
}

// readBacklog returns a copy of the file, which is written to no more.
func readBacklog(dir *directory) ([]byte, error) {
	fd, err := unix.Openat(dir.fd, backlogFile, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir.name(backlogFile), Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: dir.name(backlogFile), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != os.Geteuid() || st.Size < blocksAt || st.Size > maxBacklog {
		return nil, fmt.Errorf("%s: a %s of %d bytes and user %d: not what a daemon left", dir.name(backlogFile), fileType(st.Mode), st.Size, st.Uid)
	}
	mem := make([]byte, st.Size)
	for n := 0; n < len(mem); {
		k, err := unix.Pread(fd, mem[n:], int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil || k <= 0 {
			return nil, fmt.Errorf("read %s: %d of %d bytes: %v", dir.name(backlogFile), n, len(mem), err)
		}
		n += k
	}
	return mem, nil
}

// chunkOf returns what was read and not kept, if there is such a thing.
func chunkOf(mem []byte, word uint64) ([]byte, bool) {
	room := mem[chunkAt:blocksAt]
	switch {
	case word&chunkRead != 0:
		n := int(word &^ chunkRead)
		return room[:min(n, len(room))], n <= len(room)
	case word&chunkReading != 0:
		have, n := int(word&^chunkReading>>31), int(word&(1<<31-1))
		if have+n > len(room) {
			return nil, false
		}
		seen := min(n, signSize)
		return room[:have+n], !bytes.Equal(room[have:have+seen], mem[atSign:atSign+seen])
	}
	return nil, false
}

// keptOf puts the beginnings of lines together again.
func keptOf(mem []byte) map[uint64]HandoverFIFO {
	parts := make(map[uint64][][]byte)
	for at := blocksAt; at+blockSize <= len(mem); at += blockSize {
		block := mem[at : at+blockSize]
		id := binary.NativeEndian.Uint64(block)
		index := int(binary.NativeEndian.Uint32(block[blockIndex:]))
		n := int(binary.NativeEndian.Uint32(block[blockLen:]))
		if id < uint64(firstFIFO) || n > blockSize-blockHead || index > chunkSize/blockSize {
			continue
		}
		if missing := index + 1 - len(parts[id]); missing > 0 {
			parts[id] = append(parts[id], make([][]byte, missing)...)
		}
		parts[id][index] = block[blockHead : blockHead+n]
	}
	kept := make(map[uint64]HandoverFIFO)
	for id, list := range parts {
		text := bytes.Join(list, nil)
		if whose, ok := getOwner(text); ok {
			whose.of.Partial = text[whose.end:]
			kept[id] = whose.of
		}
	}
	return kept
}

// countsOf reads the counters of entries.
func countsOf(mem []byte) map[string]Counts {
	all := make(map[string]Counts)
	for at := blocksAt; at+blockSize <= len(mem); at += blockSize {
		block := mem[at : at+blockSize]
		if binary.NativeEndian.Uint64(block) != countsID {
			continue
		}
		if entry, c, ok := getCounts(block); ok {
			all[entry] = c
		}
	}
	return all
}

// begun is where a write of lines went that the daemon did not live to see done.
type begun struct {
	dev, ino uint64
	pos      int64
}

// arrived returns how much of lines is in the file that out is, at the place to which
// they were written. Elsewhere, in a pipe for one, nobody can tell, and nothing is
// taken to have arrived: rather twice than not at all.
func (w begun) arrived(out *os.File, lines []byte) int {
	var st unix.Stat_t
	conn, err := out.SyscallConn()
	if err != nil {
		return 0
	}
	fd := -1
	_ = conn.Control(func(own uintptr) {
		if unix.Fstat(int(own), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && uint64(st.Dev) == w.dev && st.Ino == w.ino {
			fd, _ = unix.Open(fmt.Sprintf("/proc/self/fd/%d", own), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
	})
	if fd < 0 {
		return 0
	}
	defer unix.Close(fd)
	there := make([]byte, len(lines)+1)
	n := 0
	for n < len(there) {
		k, err := unix.Pread(fd, there[n:], w.pos+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil || k <= 0 {
			break
		}
		n += k
	}
	same := 0
	for same < min(n, len(lines)) && there[same] == lines[same] {
		same++
	}
	if same == len(lines) || same == n {
		return same
	}
	// Something else stands behind a part of a line: that is not ours, or nobody
	// will find it again there.
	return bytes.LastIndexByte(lines[:same], '\n') + 1
}

// bootID names the present boot of the system; empty if that cannot be read.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(text))
}
