package spawn

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Errors of [Identity.Open] and [Identify]; a caller tells them apart with errors.Is.
var (
	// ErrGone: the process has ended and was reaped, or was of another boot.
	ErrGone = errors.New("the process is gone")
	// ErrStranger: its pid belongs to another process by now, or to one that
	// could not be told from another.
	ErrStranger = errors.New("the pid is another process's")
)

// Identity names a process for good: other than its pid, which the kernel gives
// to the next one, it can be written down and used after the writer's death.
type Identity struct {
	BootID string
	PID    int
	// Inode is that of its pidfds in pidfs. The kernel gives each to one process
	// in the life of the system (Linux 6.9; 0 before).
	Inode uint64
	// Handle is its file handle, by which it can be opened without going by its
	// pid: the handle's type in 4 bytes, big endian, then the handle (Linux 6.14
	// makes them, 6.17 opens them; nil before).
	Handle []byte
	// Start is when it began, in clock ticks since the boot: field 22 of
	// /proc/PID/stat. It is 0 where there is an Inode, and good for little: a pid
	// that is used again at once comes with the same number in most cases.
	Start uint64
}

// BootID returns the identity of the running boot, random(4).
func BootID() (string, error) { return bootID() }

var bootID = sync.OnceValues(func() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return string(bytes.TrimSpace(b)), nil
})

// Identify returns the identity of the process of a pidfd. It is ErrGone once
// the process was reaped; a zombie has one.
func Identify(pidfd int) (Identity, error) {
	pid, err := pidOf(pidfd)
	if err != nil {
		return Identity{}, fmt.Errorf("identify a process: %w", err)
	}
	return identify(pid, pidfd)
}

// identify is Identify where the pid is known.
func identify(pid, pidfd int) (Identity, error) {
	boot, err := BootID()
	if err != nil {
		return Identity{}, err
	}
	id := Identity{BootID: boot, PID: pid, Inode: inode(pidfd)}
	if id.Inode == 0 {
		if id.Start, err = startTime(pid, pidfd); err != nil {
			return Identity{}, fmt.Errorf("identify process %d: %w", pid, err)
		}
		return id, nil
	}
	if h, _, err := unix.NameToHandleAt(pidfd, "", unix.AT_EMPTY_PATH); err == nil {
		id.Handle = append(binary.BigEndian.AppendUint32(nil, uint32(h.Type())), h.Bytes()...)
	}
	return id, nil
}

// Open returns a close-on-exec pidfd of the process that has this identity, a
// zombie included, or an error that wraps ErrGone or ErrStranger. It never
// returns another process's.
//
// Where there is no Inode (before Linux 6.9) an equal start time is not enough:
// verify is asked what else is known of the process of that pid, its control
// group or its environment say, while it is certain that the pid is still
// its own. Without verify nothing is certain there, and that is ErrStranger.
func (id Identity) Open(verify func(pid int) bool) (pidfd int, err error) {
	pidfd, err = id.open(verify)
	if err != nil {
		return -1, fmt.Errorf("open process %d: %w", id.PID, err)
	}
	return pidfd, nil
}

func (id Identity) open(verify func(pid int) bool) (int, error) {
	boot, err := BootID()
	switch {
	case err != nil:
		return -1, err
	case id.BootID != boot:
		return -1, fmt.Errorf("%w: another boot", ErrGone)
	case id.PID <= 0:
		return -1, fmt.Errorf("%w: no pid", ErrStranger)
	}
	fd, err := id.openHandle()
	if err == unix.ESTALE {
		return -1, ErrGone
	}
	if err != nil {
		// PIDFD_OPEN of a thread that leads no process is EINVAL or ENOENT.
		switch fd, err = unix.PidfdOpen(id.PID, 0); err {
		case nil:
		case unix.ESRCH:
			return -1, ErrGone
		case unix.EINVAL, unix.ENOENT:
			return -1, fmt.Errorf("%w: a thread's", ErrStranger)
		default:
			return -1, os.NewSyscallError("pidfd_open", err)
		}
	}
	if err := id.check(fd, verify); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// openHandle opens the process by its file handle. ESTALE means that it is gone,
// and any other error that it does not work here.
func (id Identity) openHandle() (int, error) {
	if len(id.Handle) <= 4 {
		return -1, unix.ENOSYS
	}
	h := unix.NewFileHandle(int32(binary.BigEndian.Uint32(id.Handle)), id.Handle[4:])
	return unix.OpenByHandleAt(unix.FD_PIDFS_ROOT, h, unix.O_CLOEXEC)
}

// check makes sure that fd is of the process meant.
func (id Identity) check(fd int, verify func(pid int) bool) error {
	if id.Inode != 0 {
		if inode(fd) != id.Inode {
			return ErrStranger
		}
		return nil
	}
	start, err := startTime(id.PID, fd)
	if err != nil {
		return err
	}
	if start != id.Start || verify == nil || !verify(id.PID) {
		return ErrStranger
	}
	if _, err := pidOf(fd); err != nil { // what verify saw may be the next one's
		return err
	}
	return nil
}

// inode returns the inode of a pidfd in pidfs, or 0 where there is no such file
// system: before it all pidfds had the same.
func inode(pidfd int) uint64 {
	var st unix.Stat_t
	if !havePidfs() || unix.Fstat(pidfd, &st) != nil {
		return 0
	}
	return st.Ino
}

// havePidfs reports whether pidfds have a file system of their own, Linux 6.9.
var havePidfs = sync.OnceValue(func() bool {
	fd, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.PID_FS_MAGIC
})

// pidOf returns the pid of the process of a pidfd, or ErrGone if it was reaped.
func pidOf(pidfd int) (int, error) {
	var info unix.PidfdInfo // Linux 6.13
	switch err := unix.IoctlPidfdInfo(pidfd, &info); {
	case err == nil && info.Pid > 0:
		return int(info.Pid), nil
	case err == syscall.ESRCH:
		return 0, ErrGone
	}
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(pidfd))
	if err != nil {
		return 0, err
	}
	_, line, ok := bytes.Cut(text, []byte("Pid:"))
	if !ok {
		return 0, fmt.Errorf("descriptor %d: not a pidfd", pidfd)
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	pid, err := strconv.Atoi(string(bytes.TrimSpace(line)))
	if err != nil {
		return 0, fmt.Errorf("descriptor %d: its pid: %w", pidfd, err)
	}
	if pid <= 0 { // -1 once reaped, 0 in another pid namespace
		return 0, ErrGone
	}
	return pid, nil
}

// startTime returns field 22 of /proc/PID/stat of the process of pidfd.
func startTime(pid, pidfd int) (uint64, error) {
	st, err := readStat(pid)
	if err != nil {
		return 0, ErrGone
	}
	if now, err := pidOf(pidfd); err != nil || now != pid { // was it the next one's?
		return 0, ErrGone
	}
	return st.start, nil
}

// TakeBack returns a copy of the descriptor fd of a living process, such as a
// listening socket that it was given: the same open file, close-on-exec here.
// It needs the right to trace the process, see ptrace(2). Linux 5.6,
// pidfd_getfd(2).
func TakeBack(pidfd, fd int) (int, error) {
	own, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return -1, fmt.Errorf("take descriptor %d back: %w", fd, os.NewSyscallError("pidfd_getfd", err))
	}
	return own, nil
}
