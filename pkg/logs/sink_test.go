package logs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSinkNeverWaits: whatever the output is, a flush returns when it is full,
// and goes on where it stopped; the flags of the open file that we were given
// stay as they were.
func TestSinkNeverWaits(t *testing.T) {
	pipe := func() (int, int) {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		return p[0], p[1]
	}
	socket := func() (int, int) {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return p[0], p[1]
	}
	for _, c := range []struct {
		name string
		open func() (r, w int)
		poll bool // as when the pipe cannot be opened a second time
	}{
		{"pipe", pipe, false}, {"pipe of another user", pipe, true}, {"socket", socket, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, w := c.open()
			defer unix.Close(r)
			s := new(sink)
			if c.poll {
				s.fd, s.poll = w, true
			} else {
				file := os.NewFile(uintptr(w), "out")
				s = newSink(file)
				if flags, err := unix.FcntlInt(uintptr(w), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
					t.Errorf("flags %#x %v", flags, err)
				}
				file.Close()
			}
			defer s.close()
			var want bytes.Buffer
			for i := range 200_000 {
				fmt.Fprintf(&want, "line %d\n", i)
			}
			s.buf = append(s.buf, want.Bytes()...)
			got, buf, stops := []byte(nil), make([]byte, 1<<16), 0
			for s.flush(); s.waiting() > 0; s.flush() {
				if !s.blocked {
					t.Fatal("not all written, and not blocked")
				}
				stops++
				n, err := unix.Read(r, buf)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, buf[:n]...)
			}
			s.close()
			for n := 1; n > 0; {
				n, _ = unix.Read(r, buf)
				got = append(got, buf[:max(n, 0)]...)
			}
			if !bytes.Equal(got, want.Bytes()) || stops == 0 {
				t.Errorf("%d of %d bytes, stopped %d times", len(got), want.Len(), stops)
			}
		})
	}
}

// TestSinkTorn: when the rest of a line could not be written, the next line
// begins on a line of its own.
func TestSinkTorn(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s := newSink(file)
	defer s.close()
	s.buf = append(s.buf, "whole\nha"...)
	s.flush()
	// As after a short write to a disk that is then full.
	s.buf, s.off = append(s.buf, "half\nlost\n"...), 2
	if n := s.stop(unix.ENOSPC); n != 2 || !s.torn || s.waiting() != 0 {
		t.Fatalf("%d dropped, %+v", n, s)
	}
	s.buf = append(s.buf, "next\n"...)
	if got := string(s.unwritten()); got != "\nnext\n" {
		t.Errorf("handed over: %q", got)
	}
	s.flush()
	if got, _ := os.ReadFile(file.Name()); string(got) != "whole\nha\nnext\n" {
		t.Errorf("%q", got)
	}
}

// TestFullAndClosed: an output that takes nothing at all costs lines, nothing
// else.
func TestFullAndClosed(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("needs /dev/full: ", err)
	}
	defer full.Close()
	shut, err := os.Create(filepath.Join(t.TempDir(), "shut"))
	if err != nil {
		t.Fatal(err)
	}
	shut.Close()
	chunks := 100
	if testing.Short() {
		chunks = 10
	}
	for _, out := range []*os.File{full, shut} {
		errs, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		o, err := New(Options{Dir: filepath.Join(t.TempDir(), "log"), Out: out, Err: errs})
		errs.Close()
		if err != nil {
			t.Fatal(err)
		}
		k := Key{Entry: "e"}
		if err := o.Add(k); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(o.Path(k), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range chunks {
			write(t, f, string(bytes.Repeat([]byte("0123456\n"), 8<<10)))
		}
		o.Print(Record{Text: "own"})
		o.Remove(k)
		if err := o.Close(10 * time.Second); err != nil {
			t.Error(err)
		}
		f.Close()
		if n := o.Stats().Dropped; n != uint64(chunks)*8<<10+1 {
			t.Errorf("%s: %d dropped", out.Name(), n)
		}
	}
}
