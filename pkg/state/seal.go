package state

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// memfdName is what /proc/PID/fd shows of a sealed state.
const memfdName = "sentryd-state"

// seals make a memfd's content final: no write, no change of size, and no
// change of the seals.
const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// Seal returns a close-on-exec file with data in it that nobody can change
// any more: a sealed memfd (memfd_create(2), 3.17) or, where that is refused,
// an unlinked file (O_TMPFILE, 3.11) opened for reading only. The caller
// closes it.
func Seal(data []byte) (*os.File, error) {
	f, err := sealMemfd(data)
	if err == nil {
		return f, nil
	}
	errs := []error{err}
	for _, dir := range []string{"/run", "/dev/shm", os.TempDir()} {
		f, err := sealUnlinked(dir, data)
		if err == nil {
			return f, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("seal state: %w", errors.Join(errs...))
}

func sealMemfd(data []byte) (*os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	// MFD_NOEXEC_SEAL is 6.3+; before it the flag is EINVAL, and with
	// vm.memfd_noexec=2 a memfd without it is EACCES.
	fd, err := unix.MemfdCreate(memfdName, flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(memfdName, flags)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), memfdName)
	if _, err := f.WriteAt(data, 0); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, os.NewSyscallError("fcntl F_ADD_SEALS", err)
	}
	return f, nil
}

func sealUnlinked(dir string, data []byte) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC|unix.O_EXCL, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open O_TMPFILE", Path: dir, Err: err}
	}
	w := os.NewFile(uintptr(fd), dir)
	defer w.Close()
	if _, err := w.WriteAt(data, 0); err != nil {
		return nil, err
	}
	// A second open, for reading only: nobody who gets this descriptor writes.
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY, 0)
}

// maxState bounds what a reader takes from a descriptor: 10,000 slots come to
// some megabytes.
const maxState = 256 << 20

// ReadState reads and decodes the state in a descriptor, such as the one that
// [Preflight] gives to the binary it tries. It reads from the start whatever
// the file's offset is, which old and new holders share.
func ReadState(fd int) (*Saved, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("read state from descriptor %d: %w", fd, os.NewSyscallError("fstat", err))
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxState {
		return nil, fmt.Errorf("read state from descriptor %d: %w: mode %#o, %d bytes", fd, ErrNotState, st.Mode, st.Size)
	}
	data := make([]byte, st.Size)
	for n := 0; n < len(data); {
		m, err := unix.Pread(fd, data[n:], int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && m == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, fmt.Errorf("read state from descriptor %d: %w", fd, err)
		}
		n += m
	}
	return Decode(data)
}
