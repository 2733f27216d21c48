package sockets

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// inode identifies the file of a unix socket; zero for none.
type inode struct{ dev, ino uint64 }

func inodeOf(st *unix.Stat_t) inode { return inode{uint64(st.Dev), st.Ino} }

// openUnix makes the socket and its file. Nobody can connect before listen(2),
// the last step, and until the owner and the mode are set the file is open to
// nobody but its maker.
func (s *Spec) openUnix() (int, inode, error) {
	if err := removeStale(s.Address); err != nil {
		return -1, inode{}, s.fail("bind", err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, inode{}, s.fail("socket", err)
	}
	id, op, err := s.bindUnix(fd)
	if err != nil {
		removeFile(s.Address, id)
		unix.Close(fd)
		return -1, inode{}, s.fail(op, err)
	}
	return fd, id, nil
}

func (s *Spec) bindUnix(fd int) (id inode, op string, err error) {
	if op, err := s.makeFile(fd); err != nil {
		return id, op, err
	}
	if id, op, err = s.dressFile(fd, inode{}); err != nil {
		return id, op, err
	}
	// The socket's own inode, which is not the file's.
	if err := unix.Fchown(fd, s.UID, s.GID); err != nil {
		return id, "fchown", err
	}
	if err := unix.Listen(fd, maxBacklog); err != nil {
		return id, "listen", err
	}
	return id, "", nil
}

// makeFile binds the socket. bind(2) gives the file the mode of the socket's own
// inode, less the umask, and does not follow a symbolic link: it fails.
func (s *Spec) makeFile(fd int) (op string, err error) {
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return "fchmod", err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: s.Address}); err != nil {
		return "bind", err
	}
	return "", nil
}

// dressFile gives the file of a bound socket its owner and its mode. known is
// the file if it is known already.
func (s *Spec) dressFile(fd int, known inode) (id inode, op string, err error) {
	file, err := fileOf(fd, s.Address)
	if err != nil {
		return id, "open", err
	}
	defer unix.Close(file)
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil {
		return id, "fstat", err
	}
	if id = inodeOf(&st); st.Mode&unix.S_IFMT != unix.S_IFSOCK || known != (inode{}) && id != known {
		return inode{}, "open", unix.EEXIST // somebody put something else in its place
	}
	if int(st.Uid) != s.UID || int(st.Gid) != s.GID {
		if err := unix.Fchownat(file, "", s.UID, s.GID, unix.AT_EMPTY_PATH); err != nil {
			return id, "chown", err
		}
	}
	// fchmod(2) does not take a descriptor of O_PATH; its name in proc(5) is
	// the file itself.
	if err := unix.Chmod(procPath(file), s.Mode); err != nil {
		return id, "chmod", err
	}
	return id, "", nil
}

// siocUnixFile opens the file that a unix socket is bound to, with O_PATH:
// include/uapi/linux/un.h, since Linux 4.16. It needs CAP_NET_ADMIN.
const siocUnixFile = 0x89e0

// fileOf opens the file of a socket. Where the kernel does not say which it is
// that is the socket at path: then somebody who may write to the directory could have
// put another one there, but for a plain user nothing hangs on that.
func fileOf(fd int, path string) (int, error) {
	file, err := unix.IoctlRetInt(fd, siocUnixFile)
	if err == nil {
		return file, nil
	}
	return unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// removeStale removes a socket at path that nobody listens on. Everything
// happens in the one directory that was there at first, whatever becomes of
// its name.
func removeStale(path string) error {
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	base := filepath.Base(path)
	var st unix.Stat_t
	switch err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case err == unix.ENOENT:
		return nil
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return unix.EADDRINUSE // as bind(2) would say
	}
	// Non-blocking: a queue that is full says EAGAIN.
	c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(c)
	switch err := unix.Connect(c, &unix.SockaddrUnix{Name: procPath(dir) + "/" + base}); err {
	case unix.ECONNREFUSED: // nobody has it open
		return unix.Unlinkat(dir, base, 0)
	case nil, unix.EAGAIN, unix.EPROTOTYPE:
		return unix.EADDRINUSE
	default:
		return err
	}
}

// removeFile removes the file of a socket, unless something else is there by
// now. Call it while the socket is open: after that its inode may be another's.
func removeFile(path string, id inode) {
	if isFile(path, id) {
		os.Remove(path)
	}
}

// isFile reports whether path itself, not what it may link to, is that file.
func isFile(path string, id inode) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && inodeOf(&st) == id
}
