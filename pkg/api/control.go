package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
)

// maxSocketPath is the size of sun_path less the final NUL (unix(7)).
const maxSocketPath = 107

// controlMode lets everyone connect: who may do what is decided by who it is.
const controlMode = 0o666

// listenUnix binds the control socket. The path's directory is the daemon's
// own, so nobody else can put anything there between two steps.
func listenUnix(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("control socket %s: the path has %d bytes and a socket's can have %d; use a shorter runtime directory",
			path, len(path), maxSocketPath)
	}
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// bind(2) does not follow a symbolic link, it fails.
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// The path has to stay when this image's descriptor is closed.
	ln.SetUnlinkOnClose(false)
	if err := os.Chmod(path, controlMode); err != nil {
		removeSocket(path)
		ln.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return ln, nil
}

// removeStale removes a socket of ours that nobody listens on.
func removeStale(path string) error {
	err := isOurSocket(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
		return fmt.Errorf("%s: somebody listens on it already", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return removeSocket(path)
}

// removeSocket removes path if it is a socket of ours. Unlike os.Remove it
// never removes a directory.
func removeSocket(path string) error {
	if err := isOurSocket(path); err != nil {
		return err
	}
	if err := syscall.Unlink(path); err != nil {
		return &fs.PathError{Op: "unlink", Path: path, Err: err}
	}
	return nil
}

// isOurSocket says whether path itself, not what it may link to, is a socket
// that belongs to the daemon's user.
func isOurSocket(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if fi.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s: there is something that is not a socket (%s)", path, fi.Mode())
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: the socket belongs to another user", path)
	}
	return nil
}
