package sockets

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

func stat(t *testing.T, path string) (mode os.FileMode, uid int) {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Mode(), int(fi.Sys().(*syscall.Stat_t).Uid)
}

// TestFileOfAUnixSocket: mode and owner are what the spec says, at once and
// when they change, and the socket stays the same.
func TestFileOfAUnixSocket(t *testing.T) {
	s := newSet(t)
	path := filepath.Join(t.TempDir(), "s")
	spec := mine(Unix, path)
	var first int
	for i, want := range []os.FileMode{0o777, 0o600, 0o660} { // the first is more than any umask leaves
		spec.Mode = uint32(want)
		if os.Geteuid() == 0 {
			spec.UID, spec.GID = i, i
		}
		fd := mustOpen(t, s, spec, 0)
		if i == 0 {
			first = fd
		}
		if mode, uid := stat(t, path); mode != os.ModeSocket|want || uid != spec.UID || fd != first {
			t.Errorf("mode %v, owner %d, descriptor %d; want %v, %d, %d", mode, uid, fd, want, spec.UID, first)
		}
	}
}

// TestNoWindow: before the owner and the mode are set nobody but the maker
// may connect, and nobody at all can.
func TestNoWindow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	spec := mine(Unix, path)
	spec.Mode = 0o666
	if op, err := spec.makeFile(fd); err != nil {
		t.Fatalf("%s: %v", op, err)
	}
	if mode, _ := stat(t, path); mode != os.ModeSocket|0o600 {
		t.Errorf("the mode between the steps is %v", mode)
	}
	if c, err := net.Dial(Unix, path); err == nil {
		c.Close()
		t.Error("one can connect between the steps")
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix(Unix, &net.UnixAddr{Name: path, Net: Unix})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	s := newSet(t)
	reach(t, listener(t, mustOpen(t, s, mine(Unix, path), 0)), Unix, path)
}

// TestAFullQueueIsNotStale: somebody listens who does not accept.
func TestAFullQueueIsNotStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial(Unix, path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = tryOpen(newSet(t), mine(Unix, path), 0)
	wantErrno(t, err, "bind", unix.EADDRINUSE, "unix:"+path)
}

// TestOnlyOurFileIsRemoved, and one that was removed is made anew.
func TestOnlyOurFileIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s := newSet(t)
	spec := mine(Unix, path)
	mustOpen(t, s, spec, 0)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	reach(t, listener(t, mustOpen(t, s, spec, 0)), Unix, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen(Unix, path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s.Close()
	reach(t, other, Unix, path)
}

// TestNoOtherFileIsDressed: what took the place of the socket's file gets
// neither its owner nor its mode.
func TestNoOtherFileIsDressed(t *testing.T) {
	testenv.Need(t, testenv.Root())
	dir := t.TempDir()
	path, precious := filepath.Join(dir, "s"), filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, replace := range map[string]func() error{
		"symbolic link": func() error { return os.Symlink(precious, path) },
		"hard link":     func() error { return os.Link(precious, path) },
		"socket": func() error {
			ln, err := net.Listen(Unix, path)
			if err == nil {
				t.Cleanup(func() { ln.Close() })
				err = os.Chmod(path, 0o600)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec := mine(Unix, path)
			fd, id, err := spec.openUnix()
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err := errors.Join(os.Remove(path), replace()); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(path)
			spec.UID, spec.Mode = nobody, 0o666
			// It is the socket's own file that is dressed, or none.
			_, _, _ = spec.dressFile(fd, id)
			for _, p := range []string{path, precious} {
				if mode, uid := stat(t, p); uid != 0 || mode.Type() == 0 && mode.Perm() != 0o600 || mode.Type() == os.ModeSocket && mode.Perm() != 0o600 {
					t.Errorf("%s: mode %v, owner %d", p, mode, uid)
				}
			}
		})
	}
}
