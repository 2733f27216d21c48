package state

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Names in the runtime directory. What a crash left of journalTemp is removed by
// the next compaction.
const (
	journalTemp = "journal.new"
	// JournalName is that of the journal.
	JournalName = "journal"
)

// A journal is made anew when it is larger than minCompact, and than
// compactFactor times what it was made with.
const (
	minCompact    = 1 << 20
	compactFactor = 4
)

// Errors of a [Journal]; a caller tells them apart with errors.Is.
var (
	// ErrStale: a batch could not be written, and what follows it would be
	// read without it; see Journal.Stale.
	ErrStale = errors.New("the journal lacks an earlier record")
	// ErrFull: the journal would be larger than what a reader takes.
	ErrFull = errors.New("the journal is full")
)

// Journal is the file in the runtime directory that a daemon writes its state
// to before it acts on it, so that one started after its death knows which
// processes are its own. Only one goroutine may use it.
//
// Nothing is synced to a disk: what a process wrote is the kernel's, and a
// SIGKILL of the process loses none of it. Only a crash of the machine would,
// and that ends the processes too; a journal from another boot says nothing.
//
// The discipline is the caller's: append the record of a slot with the start
// pending before the process is made, its Process as soon as there is one, and
// the record of an exit before what follows from it is done.
//
// The zero value is not usable, see NewJournal.
type Journal struct {
	dir   int // O_PATH
	path  string
	file  int // -1 before the first compaction
	head  JournalHead
	size  int64 // of what is written and whole
	limit int64 // above it a compaction is due
	max   int64
	stale bool

	memory bool // the file is in memory
}

// NewJournal returns a journal for a runtime directory (see [RuntimeDir]),
// which the caller has locked. It writes nothing, and leaves the journal of an
// earlier daemon as it is, until the first Compact; it is stale until then.
// version is that of the program, for messages.
func NewJournal(dir, version string) (*Journal, error) {
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	fd, err := openDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open the journal's directory: %w", err)
	}
	return &Journal{
		dir: fd, path: dir, file: -1, stale: true, max: maxState,
		head: JournalHead{BootID: boot, PID: os.Getpid(), Version: version, Format: JournalFormat},
	}, nil
}

func openDir(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, nil
}

// Append writes a batch with one write(2), and not at all when it returns an
// error: then the journal is stale. An empty batch writes nothing.
func (j *Journal) Append(b *Batch) error {
	switch {
	case b.Empty():
		return nil
	case j.stale:
		return fmt.Errorf("append to the journal: %w", ErrStale)
	case j.size+int64(len(b.buf)) > j.max:
		j.stale = true
		return fmt.Errorf("append to the journal: %w: %d bytes", ErrFull, j.size)
	}
	if err := write(j.file, b.seal(), j.memory); err != nil {
		j.stale = true
		// A reader ignores a torn end. It is cut off all the same: nothing may
		// ever be appended behind it.
		_ = unix.Ftruncate(j.file, j.size)
		return fmt.Errorf("append to the journal: %w", err)
	}
	j.size += int64(len(b.buf))
	return nil
}

// Stale reports that the file lacks something: a batch could not be written, or
// nothing was yet. Append then refuses every batch, since records that a later
// one relies on would be missing, and a reader gets the state of before. The
// next Compact that works mends that. It should be tried again after a while,
// a second say: each try writes the whole state.
func (j *Journal) Stale() bool { return j.stale }

// Due reports that a Compact is due: the journal is stale or has grown large.
func (j *Journal) Due() bool { return j.stale || j.size > j.limit }

// Size returns the length of the file in bytes.
func (j *Journal) Size() int64 { return j.size }

// Compact writes a new file that begins with the whole state, see [Batch.All],
// and puts it in the place of the old one. Whoever opens the journal finds the
// one or the other, and each is whole. With an error the old one is as it was,
// and is written on unless it is stale.
func (j *Journal) Compact(all *Batch) error {
	if err := j.compact(all); err != nil {
		j.limit = max(j.limit, 2*j.size) // not again at every batch
		return fmt.Errorf("compact the journal: %w", err)
	}
	return nil
}

func (j *Journal) compact(all *Batch) error {
	if all.Empty() {
		return errors.New("no state given")
	}
	data, err := appendJournalHead(nil, &j.head)
	if err != nil {
		return err
	}
	size := int64(len(data) + len(all.buf))
	if size > j.max || len(all.buf) > math.MaxUint32 {
		return fmt.Errorf("%w: a state of %d bytes", ErrFull, size)
	}
	if err := unix.Unlinkat(j.dir, journalTemp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "unlink", Path: journalTemp, Err: err}
	}
	const flags = unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(j.dir, journalTemp, flags, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: journalTemp, Err: err}
	}
	Failpoint("compact-created")
	if err := j.fill(fd, data, all.seal()); err != nil {
		unix.Close(fd)
		_ = unix.Unlinkat(j.dir, journalTemp, 0) // it takes room
		return err
	}
	Failpoint("compact-renamed")
	j.closeFile()
	j.file, j.size, j.stale = fd, size, false
	j.memory = inMemory(fd)
	j.limit = max(minCompact, compactFactor*size)
	return nil
}

// fill writes the new file and gives it its name.
func (j *Journal) fill(fd int, head, all []byte) error {
	if err := write(fd, head, false); err != nil {
		return err
	}
	if err := write(fd, all, false); err != nil {
		return err
	}
	Failpoint("compact-written")
	if err := unix.Renameat(j.dir, journalTemp, j.dir, JournalName); err != nil {
		return &os.PathError{Op: "rename", Path: journalTemp, Err: err}
	}
	return nil
}

// inMemory reports whether a file is on no device that could keep a write waiting.
func inMemory(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && (fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC)
}

// write writes all of data at once. A regular file takes less only when there is
// no room for more. In memory that takes a few microseconds, and Go's scheduler,
// which may wake a thread for each system call that it is told of, is not told.
func write(fd int, data []byte, memory bool) error {
	for {
		n, err := 0, error(nil)
		if memory {
			r, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(data))), uintptr(len(data)))
			if n = int(r); errno != 0 {
				err = errno
			}
		} else {
			n, err = unix.Write(fd, data)
		}
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("write", err)
		case n < len(data):
			return fmt.Errorf("write: %w: %d of %d bytes", io.ErrShortWrite, n, len(data))
		default:
			return nil
		}
	}
}

// Remove removes the file: the daemon has ended and nothing of it runs. The
// journal is stale then.
func (j *Journal) Remove() error {
	j.stale = true
	if err := unix.Unlinkat(j.dir, JournalName, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the journal: %w", err)
	}
	return nil
}

// Close closes the journal's descriptors. The file stays.
func (j *Journal) Close() {
	j.stale = true
	j.closeFile()
	unix.Close(j.dir)
	j.dir = -1
}

func (j *Journal) closeFile() {
	if j.file >= 0 {
		unix.Close(j.file)
		j.file = -1
	}
}

// ReadJournal reads the journal of a runtime directory. It returns nil and no
// error where there is none; otherwise see [ParseJournal].
func ReadJournal(dir string) (*Recovered, error) {
	data, err := readJournal(dir)
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	if data == nil {
		return nil, nil
	}
	return ParseJournal(data)
}

func readJournal(dir string) ([]byte, error) {
	dirfd, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dirfd)
	fd, err := unix.Openat(dirfd, JournalName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: JournalName, Err: err}
	}
	f := os.NewFile(uintptr(fd), JournalName)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return nil, fmt.Errorf("%w: mode %#o, owner %d: not what this daemon made", ErrNotState, st.Mode, st.Uid)
	}
	if st.Size > maxState {
		return nil, fmt.Errorf("%w: %d bytes", ErrNotState, st.Size)
	}
	data := make([]byte, st.Size)
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, err
	}
	return data, nil
}
