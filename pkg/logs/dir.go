package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fifoMode is the mode of a FIFO: only its owner may write lines in a child's
// name, or read them. That is the user the child runs as, so that it can open
// /dev/stdout.
const fifoMode = 0o600

// directory is the place of the FIFOs, held open so that nothing that happens
// to the path above it can lead elsewhere.
type directory struct {
	path string
	fd   int
}

// openDirectory opens path, making it if it is missing. It must be a
// directory, not a symbolic link to one, of our own, that nobody else may
// write to.
func openDirectory(path string) (*directory, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("log directory: %w", err)
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open log directory", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "stat log directory", Path: path, Err: err}
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		unix.Close(fd)
		return nil, fmt.Errorf("log directory %s: owner %d, mode %#o: must be ours and writable by nobody else", path, st.Uid, st.Mode&0o7777)
	}
	return &directory{path: path, fd: fd}, nil
}

func (d *directory) close() { unix.Close(d.fd) }

// name returns the path of a FIFO.
func (d *directory) name(file string) string { return filepath.Join(d.path, file) }

// open opens the reading end of the FIFO called file, making it for the user
// uid if it is missing, and returns whose it is. What stands in its place and is not a
// FIFO of our own making is refused and left alone. The descriptor is close-on-exec.
func (d *directory) open(file string, uid int) (fd, owner int, err error) {
	err = unix.Mkfifoat(d.fd, file, fifoMode)
	if err != nil && err != unix.EEXIST {
		return -1, 0, &fs.PathError{Op: "mkfifo", Path: d.name(file), Err: err}
	}
	if err == nil && uid != os.Geteuid() {
		if err := unix.Fchownat(d.fd, file, uid, -1, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			d.remove(file)
			return -1, 0, &fs.PathError{Op: "chown", Path: d.name(file), Err: err}
		}
	}
	made := err == nil // and nobody but us can have put another in its place
	// Looked at before it is opened: opening a device can do things.
	if !made {
		if _, err := d.check(file); err != nil {
			return -1, 0, err
		}
	}
	fd, err = unix.Openat(d.fd, file, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, 0, &fs.PathError{Op: "open", Path: d.name(file), Err: err}
	}
	var st unix.Stat_t
	op, err := "stat", unix.Fstat(fd, &st)
	if err == nil && st.Mode&0o7777 != fifoMode {
		// The umask took bits from a new one; somebody may have given bits to an
		// old one.
		op, err = "chmod", unix.Fchmod(fd, fifoMode)
	}
	if err != nil {
		unix.Close(fd)
		return -1, 0, &fs.PathError{Op: op, Path: d.name(file), Err: err}
	}
	if !made && !d.holds(file, fd) {
		unix.Close(fd)
		return -1, 0, fmt.Errorf("%s: replaced while it was opened", d.name(file))
	}
	return fd, int(st.Uid), nil
}

// check returns the status of file if it is a FIFO of our own making. Nobody
// else can put anything into the directory. As root we give FIFOs to others.
func (d *directory) check(file string) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, file, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return st, &fs.PathError{Op: "stat", Path: d.name(file), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return st, fmt.Errorf("%s: is a %s where the log pipe belongs; remove it", d.name(file), fileType(st.Mode))
	}
	if euid := os.Geteuid(); euid != 0 && int(st.Uid) != euid {
		return st, fmt.Errorf("%s: log pipe belongs to user %d; remove it", d.name(file), st.Uid)
	}
	return st, nil
}

// holds reports whether file is the very FIFO that fd refers to.
func (d *directory) holds(file string, fd int) bool {
	st, err := d.check(file)
	if err != nil {
		return false
	}
	var open unix.Stat_t
	return unix.Fstat(fd, &open) == nil && open.Mode&unix.S_IFMT == unix.S_IFIFO &&
		open.Dev == st.Dev && open.Ino == st.Ino
}

// list returns the names in the directory.
func (d *directory) list() ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, fmt.Errorf("log directory: %w", err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// remove unlinks the FIFO if it is one of ours.
func (d *directory) remove(file string) {
	if _, err := d.check(file); err == nil {
		_ = unix.Unlinkat(d.fd, file, 0)
	}
}

func fileType(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return "symbolic link"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFREG:
		return "regular file"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "device"
}
