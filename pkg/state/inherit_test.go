package state

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// leave puts data where Inherit looks for it.
func leave(t *testing.T, data []byte) {
	t.Helper()
	f, err := Seal(data)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(f.Fd())) // Inherit closes it
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	t.Setenv(Environ, strconv.Itoa(fd))
}

func TestInheritNothing(t *testing.T) {
	if inh, err := Inherit(); inh != nil || err != nil {
		t.Errorf("%v, %v", inh, err)
	}
	for _, val := range []string{"", "x", "-1", "2", "1000000"} {
		t.Setenv(Environ, val)
		inh, err := Inherit()
		if inh == nil || inh.Saved != nil || err == nil {
			t.Errorf("%q: %v, %v", val, inh, err)
		}
		if _, ok := os.LookupEnv(Environ); ok {
			t.Errorf("%q: the variable is still there", val)
		}
	}
}

func TestInheritUnreadable(t *testing.T) {
	data, err := Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{nil, data[:len(data)/2], append(data, 'x'), []byte("nonsense")} {
		leave(t, b)
		inh, err := Inherit()
		if inh == nil || inh.Saved != nil || err == nil {
			t.Errorf("%q: %v, %v", b, inh, err)
		}
		if names := inh.Names(""); len(names) != 0 {
			t.Errorf("descriptors %q", names)
		}
	}
}

// TestInheritWhatIsThere: wrong descriptors are named and left alone, the
// others are handed on.
func TestInheritWhatIsThere(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	fds := []int{}
	for range 2 {
		fd, err := unix.Dup(int(r.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	data, err := Encode(&Saved{Files: []File{
		{"fifo:kept", fds[0]}, {"fifo:rest", fds[1]}, {"pidfd:wrong", int(w.Fd())}, {"fifo:closed", 1 << 20},
	}})
	if err != nil {
		t.Fatal(err)
	}
	leave(t, data)
	inh, err := Inherit()
	if inh == nil || inh.Saved == nil || err != nil {
		t.Fatalf("%v, %v", inh, err)
	}
	fd, ok := inh.Take("fifo:kept")
	if !ok || fd != fds[0] {
		t.Errorf("%d, %v, want %d", fd, ok, fds[0])
	}
	defer unix.Close(fd)
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("not close-on-exec (%v)", err)
	}
	if _, ok := inh.Take("fifo:kept"); ok {
		t.Error("taken twice")
	}
	if err := inh.Wrong(); err != nil {
		t.Error(err)
	}
	if fd, ok := inh.Take("pidfd:wrong"); ok {
		t.Errorf("a pipe is taken for a pidfd: %d", fd)
	}
	if err := inh.Close(); err != nil {
		t.Error(err)
	}
	for _, want := range []string{`"pidfd:wrong": descriptor`, `"fifo:closed": fstat: bad file`} {
		if err := inh.Wrong(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := unix.Fstat(fds[1], new(unix.Stat_t)); !errors.Is(err, unix.EBADF) {
		t.Errorf("the rest is still open: %v", err)
	}
	if _, err := w.Stat(); err != nil {
		t.Errorf("what is not ours was closed: %v", err)
	}
	if all := inh.TakeAll(); len(all) != 0 {
		t.Errorf("left: %v", all)
	}
}
