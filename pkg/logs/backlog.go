package logs

import (
	"crypto/rand"
	"fmt"
	"io/fs"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// backlogFile is what the reader has in hand: what was read from FIFOs and is not
// written yet. Memory that is mapped from a file outlives a process that is ended by
// SIGKILL, and costs no system call to write to; the next daemon goes on from there
// (recover.go). The name has no colon, so it is no FIFO's.
const (
	backlogFile = "backlog"
	backlogTemp = "backlog.new"
)

// The file is a page with what holds for now, the lines that are to be written, what
// was read from one FIFO and is being cut into lines, and the beginnings of lines
// of all other FIFOs.
const (
	headSize   = 4 << 10
	linesSize  = 512 << 10 // flushSize, and the longest line however it has to be written
	chunkSize  = 192 << 10 // what is kept of a line, and readSize
	linesAt    = headSize
	chunkAt    = linesAt + linesSize
	blocksAt   = chunkAt + chunkSize
	blockSize  = 1 << 10
	maxBlocks  = 64 << 10
	growBlocks = 64
	mappedSize = blocksAt + maxBlocks*blockSize
)

// Places in the head. Each is a word of its own, since what is written with one
// instruction is there or not.
const (
	atMagic    = 0
	atBoot     = 8   // 40 bytes
	atProgress = 64  // length of the lines, and how much of the chunk is in them
	atWritten  = 72  // how much of the lines is written
	atChunk    = 80  // what there is of a chunk; 0: none
	atWriting  = 88  // 1: a write was begun, and this is where it goes:
	atDev      = 96  // the file's device,
	atIno      = 104 // its inode,
	atPos      = 112 // the place in it
	atFrom     = 120 // of this byte of the lines
	atSign     = 128 // 16 bytes that stand where a read has not been
	atOwner    = 192 // whose the chunk is
)

// backlogMagic is the first word of a file of this form. A number is never used for
// another form.
const backlogMagic = 1<<56 | 0x676f6c6b636162 // "backlog", 1

const signSize = 16

// The two kinds of chunk, in the upper bits of its word.
const (
	chunkReading = 1 << 62 // so much is there, and so much is being read behind it
	chunkRead    = 2 << 62 // so much is there
)

// backlog is the memory of the reader goroutine, which alone writes to it.
type backlog struct {
	mem    []byte
	fd     int // -1: memory that dies with the process
	why    error
	free   []uint32 // blocks
	blocks uint32   // how many the file has room for
	sign   [signSize]byte
	owner  [ownerSize]byte
}

// newBacklog makes a file for what the reader has in hand, under another name until
// publish. Where there can be none it is ordinary memory, and why says so.
func newBacklog(dir *directory, boot string) *backlog {
	b := &backlog{fd: -1}
	if err := b.create(dir); err != nil {
		b.close()
		b.why = err
		b.mem = make([]byte, blocksAt)
	}
	b.word(atMagic).Store(backlogMagic)
	copy(b.mem[atBoot:atBoot+40], boot)
	// In text there are no such bytes at all.
	_, _ = rand.Read(b.sign[:])
	for i := range b.sign {
		b.sign[i] |= 0x80
	}
	copy(b.mem[atSign:], b.sign[:])
	return b
}

// create makes the file and maps it, with more room than it has yet.
func (b *backlog) create(dir *directory) error {
	err := unix.Unlinkat(dir.fd, backlogTemp, 0)
	if err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "unlink", Path: dir.name(backlogTemp), Err: err}
	}
	b.fd, err = unix.Openat(dir.fd, backlogTemp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "create", Path: dir.name(backlogTemp), Err: err}
	}
	if err := keepsPages(b.fd); err != nil {
		return fmt.Errorf("%s: %w", dir.name(backlogTemp), err)
	}
	if err := allocate(b.fd, 0, blocksAt); err != nil {
		return &fs.PathError{Op: "fallocate", Path: dir.name(backlogTemp), Err: err}
	}
	b.mem, err = unix.Mmap(b.fd, 0, mappedSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return &fs.PathError{Op: "mmap", Path: dir.name(backlogTemp), Err: err}
	}
	return nil
}

// allocate gives a file memory. On a tmpfs of Linux 6.1 any signal ends that early, also
// those by which Go preempts its goroutines, and what there was of it is taken back.
func allocate(fd int, at, size int64) error {
	for {
		if err := unix.Fallocate(fd, 0, at, size); err != unix.EINTR {
			return err
		}
	}
}

// keepsPages refuses file systems on which a page that was allocated may still have
// no room when it is written to: that would be a SIGBUS.
func keepsPages(fd int) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return fmt.Errorf("statfs: %w", err)
	}
	switch uint32(st.Type) {
	case unix.TMPFS_MAGIC, unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC:
		return nil
	}
	return fmt.Errorf("file system of type %#x: only tmpfs, ext4 and xfs keep memory safe in a file", st.Type)
}

// publish gives the file its name, in place of the one of the daemon before.
func (b *backlog) publish(dir *directory) error {
	if b.fd < 0 {
		removeBacklog(dir)
		return b.why
	}
	if err := unix.Renameat(dir.fd, backlogTemp, dir.fd, backlogFile); err != nil {
		return &fs.PathError{Op: "rename", Path: dir.name(backlogTemp), Err: err}
	}
	return nil
}

func removeBacklog(dir *directory) {
	_ = unix.Unlinkat(dir.fd, backlogFile, 0)
	_ = unix.Unlinkat(dir.fd, backlogTemp, 0)
}

// close lets go of the memory: b must not be used any more.
func (b *backlog) close() {
	if b.fd >= 0 {
		if b.mem != nil {
			_ = unix.Munmap(b.mem)
		}
		unix.Close(b.fd)
		b.fd = -1
	}
	b.mem = nil
}

// word is a word of the head.
func (b *backlog) word(at int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&b.mem[at]))
}

// lines is the room for lines, empty.
func (b *backlog) lines() []byte { return b.mem[linesAt:linesAt:chunkAt] }

// chunk is the room for what is read.
func (b *backlog) chunk() []byte { return b.mem[chunkAt:blocksAt:blocksAt] }

// progress notes in one step how long the lines are, and how much of the chunk is
// in them.
func (b *backlog) progress(lines, done int) {
	b.word(atProgress).Store(uint64(lines)<<32 | uint64(done))
}

// wrote notes how much of the lines is written.
func (b *backlog) wrote(n int) { b.word(atWritten).Store(uint64(n)) }

// emptied notes that there are no lines any more.
func (b *backlog) emptied(done int) {
	b.word(atWriting).Store(0)
	b.progress(0, done)
	b.wrote(0)
}

// writing notes that a write begins: which byte of the lines goes to which place in
// which file.
func (b *backlog) writing(dev, ino uint64, pos int64, from int) {
	b.word(atWriting).Store(0)
	b.word(atDev).Store(dev)
	b.word(atIno).Store(ino)
	b.word(atPos).Store(uint64(pos))
	b.word(atFrom).Store(uint64(from))
	b.word(atWriting).Store(1)
}

// reading notes that n bytes are about to be read behind the first have of the
// chunk, which takes the place of what is kept of f. Whether they were is seen by
// the sign, which a read writes over; and no page is missing then, which could end
// a read of a dying process in the middle.
func (b *backlog) reading(f *fifo, have, n int) {
	if b.fd < 0 {
		return
	}
	putOwner(b.mem[atOwner:headSize], f)
	room := b.mem[chunkAt+have : chunkAt+have+n]
	for i := 0; i < n; i += headSize {
		room[i] = b.sign[0]
	}
	room[n-1] = b.sign[signSize-1]
	copy(room, b.sign[:])
	b.word(atChunk).Store(chunkReading | uint64(have)<<31 | uint64(n))
}

// took notes that the chunk has n bytes, which take the place of what is kept of f.
func (b *backlog) took(f *fifo, n int) {
	if b.word(atChunk).Load() == 0 {
		putOwner(b.mem[atOwner:headSize], f)
	}
	b.word(atChunk).Store(chunkRead | uint64(n))
}

// unread notes that there is no chunk: what is kept holds.
func (b *backlog) unread() { b.word(atChunk).Store(0) }
