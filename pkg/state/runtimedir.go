package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// RuntimeDir makes the directory base/name, mode 0711 and owned by this
// process's user, and returns its path. One that exists is taken, and its mode
// set, only when it is a directory, not a symbolic link, of the same owner.
//
// base is made too when it is missing, mode 0755. One that exists must belong
// to root or to this user and be writable by nobody else unless it is sticky:
// whoever may rename in it could put another directory in place of ours. base
// itself may be reached through symbolic links; /var/run is one.
func RuntimeDir(base, name string) (string, error) {
	path := filepath.Join(base, name)
	if name == "" || name == "." || name == ".." || filepath.Base(name) != name {
		return "", fmt.Errorf("runtime directory %s: name %q", base, name)
	}
	if err := runtimeDir(base, name); err != nil {
		return "", fmt.Errorf("runtime directory %s: %w", path, err)
	}
	return path, nil
}

func runtimeDir(base, name string) error {
	made, err := mkdirBase(base)
	if err != nil {
		return err
	}
	bfd, err := unix.Open(base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", base, err)
	}
	defer unix.Close(bfd)
	if made {
		if err := unix.Fchmod(bfd, 0o755); err != nil { // mkdir obeyed the umask
			return fmt.Errorf("chmod %s: %w", base, err)
		}
	}
	uid := uint32(os.Geteuid())
	var st unix.Stat_t
	if err := unix.Fstat(bfd, &st); err != nil {
		return fmt.Errorf("stat %s: %w", base, err)
	}
	if st.Uid != uid && st.Uid != 0 {
		return fmt.Errorf("%s belongs to uid %d, not to root or uid %d", base, st.Uid, uid)
	}
	if st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0 {
		return fmt.Errorf("%s is writable by others (mode %#o)", base, st.Mode&0o7777)
	}

	if err := unix.Mkdirat(bfd, name, 0o711); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("mkdir: %w", err)
	}
	fd, err := unix.Openat(bfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return notADirectory(bfd, name, err)
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if st.Uid != uid {
		return fmt.Errorf("it belongs to uid %d, not to uid %d", st.Uid, uid)
	}
	if err := unix.Fchmod(fd, 0o711); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	return nil
}

// mkdirBase makes base and what is missing above it, and says whether base
// itself was missing.
func mkdirBase(base string) (made bool, err error) {
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil {
		return false, err
	}
	err = os.Mkdir(base, 0o755)
	if errors.Is(err, os.ErrExist) {
		return false, nil
	}
	return err == nil, err
}

// notADirectory says what stands where a directory should: open(2) answers
// ELOOP or ENOTDIR to a symbolic link.
func notADirectory(bfd int, name string, err error) error {
	var st unix.Stat_t
	if unix.Fstatat(bfd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			return errors.New("it is a symbolic link")
		case unix.S_IFDIR:
		default:
			return errors.New("it is not a directory")
		}
	}
	return fmt.Errorf("open: %w", err)
}
