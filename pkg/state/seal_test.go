package state

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSeal(t *testing.T) {
	data, err := Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	for name, seal := range map[string]func() (*os.File, error){
		"memfd":    func() (*os.File, error) { return sealMemfd(data) },
		"unlinked": func() (*os.File, error) { return sealUnlinked(t.TempDir(), data) },
		"Seal":     func() (*os.File, error) { return Seal(data) },
	} {
		t.Run(name, func(t *testing.T) {
			f, err := seal()
			if errors.Is(err, unix.EOPNOTSUPP) {
				t.Skip("needs a temporary directory with O_TMPFILE: ", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("not close-on-exec (%v)", err)
			}
			if _, err := f.WriteAt([]byte("x"), 0); err == nil {
				t.Error("a write succeeded")
			}
			if err := f.Truncate(3); err == nil {
				t.Error("a truncation succeeded")
			}
			for range 2 { // whatever the offset: the second time as the first
				s, err := ReadState(int(f.Fd()))
				if err != nil || !bytes.Equal(s.Payload, sample().Payload) {
					t.Errorf("ReadState: %+v, %v", s, err)
				}
				f.Seek(5, 0)
			}
		})
	}
}

func TestReadStateOfOtherThings(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := ReadState(int(r.Fd())); !errors.Is(err, ErrNotState) {
		t.Errorf("a pipe: %v", err)
	}
	if _, err := ReadState(1 << 20); !errors.Is(err, unix.EBADF) {
		t.Errorf("nothing: %v", err)
	}
	f, err := os.Create(t.TempDir() + "/huge")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(maxState + 1); err != nil { // sparse
		t.Fatal(err)
	}
	if _, err := ReadState(int(f.Fd())); !errors.Is(err, ErrNotState) {
		t.Errorf("a huge file: %v", err)
	}
}
