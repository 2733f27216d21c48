package logs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// dead is a backlog as a daemon leaves it that is killed.
type dead struct {
	*backlog
	t   *testing.T
	dir *directory
	out *os.File
}

func newDead(t *testing.T) *dead {
	t.Helper()
	path := t.TempDir()
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := openDirectory(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dir.close)
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	b := newBacklog(dir, "boot")
	t.Cleanup(b.close)
	if err := b.publish(dir); err != nil {
		t.Fatal(err)
	}
	return &dead{b, t, dir, out}
}

// print puts lines into the backlog.
func (d *dead) print(text string) {
	d.progress(copy(d.lines()[:linesSize], text), 0)
}

func (d *dead) fifo(entry string, id uint64) *fifo {
	return &fifo{key: Key{Entry: entry, Slot: 3}, id: id, label: label{pid: 77, incarnation: 5}}
}

// want is what the next daemon finds.
func (d *dead) want(want *Handover) {
	d.t.Helper()
	got, err := recoverBacklog(d.dir, "boot", d.out)
	if err != nil {
		d.t.Fatal(err)
	}
	if !reflect.DeepEqual(want, got) { // cmp takes seconds for long lines
		d.t.Fatal(cmp.Diff(want, got))
	}
}

func (d *dead) partial(entry, text string) HandoverFIFO {
	return HandoverFIFO{Key: Key{Entry: entry, Slot: 3}, FD: -1, PID: 77, Incarnation: 5, Partial: []byte(text)}
}

// TestFoundOfLines: what was written is not found again, of a file to the byte.
func TestFoundOfLines(t *testing.T) {
	const text = "one\ntwo\nthree\n"
	for name, c := range map[string]struct {
		file string // what stands there, from where the write began
		want string
	}{
		"nothing arrived":      {"", text},
		"all arrived":          {text, ""},
		"all, and more":        {text + "more\n", ""},
		"a part":               {"one\ntw", "o\nthree\n"},
		"a line":               {"one\n", "two\nthree\n"},
		"a part, and more":     {"one\ntwx", "two\nthree\n"},
		"something else":       {"other\n", text},
		"something of its own": {"one\nother\n", "two\nthree\n"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDead(t)
			d.print("zero\n" + text)
			d.wrote(5)
			var st unix.Stat_t
			if err := unix.Fstat(int(d.out.Fd()), &st); err != nil {
				t.Fatal(err)
			}
			if _, err := d.out.WriteString("before\n" + c.file); err != nil {
				t.Fatal(err)
			}
			check := func(want string) {
				t.Helper()
				d.want(&Handover{Entries: map[string]Counts{}, Out: append([]byte(nil), want...)})
			}
			check(text) // no write was begun
			d.writing(uint64(st.Dev), st.Ino, 7, 5)
			check(c.want)
			d.writing(uint64(st.Dev), st.Ino+1, 7, 5)
			check(text) // into another file
			d.wrote(5 + len(text))
			d.want(&Handover{Entries: map[string]Counts{}})
			d.emptied(0)
			d.want(&Handover{Entries: map[string]Counts{}})
		})
	}
}

// TestFoundOfChunk: what was read is found once, whichever step the death came at.
func TestFoundOfChunk(t *testing.T) {
	d := newDead(t)
	f, other := d.fifo("e", 7), d.fifo("other", 9)
	if err := d.keep(f, []byte("be")); err != nil {
		t.Fatal(err)
	}
	if err := d.keep(other, []byte("waits")); err != nil {
		t.Fatal(err)
	}
	found := func(lines, kept string) {
		t.Helper()
		want := &Handover{Entries: map[string]Counts{}}
		if lines != "" {
			want.Out = []byte(lines)
		}
		if kept != "" {
			want.FIFOs = append(want.FIFOs, d.partial("e", kept))
		}
		want.FIFOs = append(want.FIFOs, d.partial("other", "waits"))
		d.want(want)
	}
	found("", "be")
	room := d.chunk()
	copy(room, "be")
	d.reading(f, 2, len("gin\nnext"))
	found("", "be") // the read did not happen
	copy(room[2:], "gin\nnext")
	found("", "begin\nnext") // it did, and nobody lived to see it
	d.took(f, len("begin\nnext"))
	found("", "begin\nnext")
	copy(d.lines()[:linesSize], "begin\n")
	found("", "begin\nnext")
	d.progress(6, 6)
	found("begin\n", "next")
	if err := d.keep(f, []byte("next")); err != nil {
		t.Fatal(err)
	}
	found("begin\n", "next")
	d.unread()
	found("begin\n", "next")
	d.progress(6, 0)
	found("begin\n", "next")
	// Short reads have a short sign.
	copy(room, "next")
	d.reading(f, 4, 1)
	found("begin\n", "next")
	room[4] = '\n'
	found("begin\n", "next\n")
	d.unread()
	// Its end takes no read.
	d.took(f, 4)
	d.progress(11, 4)
	copy(d.lines()[:linesSize], "begin\nnext\n")
	found("begin\nnext\n", "")
	if err := d.keep(f, nil); err != nil {
		t.Fatal(err)
	}
	d.unread()
	found("begin\nnext\n", "")
}

// TestFoundOfLongLines: the beginning of a line may be long, and there may be many;
// what is given back is used again.
func TestFoundOfLongLines(t *testing.T) {
	d := newDead(t)
	want := &Handover{Entries: map[string]Counts{}}
	var size int64
	fifos := make([]*fifo, 40)
	for round := range 3 {
		want.FIFOs = nil
		for i := range fifos {
			entry, text := fmt.Sprintf("e%d", i), strings.Repeat(string(rune('a'+round)), 1+40*i*i)
			if round == 0 {
				fifos[i] = d.fifo(entry, uint64(10+i))
			}
			if err := d.keep(fifos[i], []byte(text)); err != nil {
				t.Fatal(err)
			}
			want.FIFOs = append(want.FIFOs, d.partial(entry, text))
		}
		d.want(want)
		var st unix.Stat_t
		if err := unix.Fstat(d.fd, &st); err != nil {
			t.Fatal(err)
		}
		if round > 0 && st.Size != size {
			t.Errorf("round %d: %d bytes, %d before", round, st.Size, size)
		}
		size = st.Size
	}
}

// TestFoundOfCounts: counters go on, and those of an entry that has gone do not.
func TestFoundOfCounts(t *testing.T) {
	d := newDead(t)
	a, b := &counts{entry: "a"}, &counts{entry: "b"}
	for range 3 {
		d.count(a, 10, 1)
		d.count(b, 7, 0)
	}
	d.want(&Handover{Entries: map[string]Counts{"a": {Bytes: 30, Lines: 3}, "b": {Bytes: 21}}})
	d.word(blocksAt + int(b.block.Load()-1)*blockSize).Store(0)
	d.want(&Handover{Entries: map[string]Counts{"a": {Bytes: 30, Lines: 3}}})
}

// TestNotFound: what is no backlog of this boot and form is left alone.
func TestNotFound(t *testing.T) {
	d := newDead(t)
	d.print("lines\n")
	if h, err := recoverBacklog(d.dir, "another boot", d.out); h != nil || err != nil {
		t.Errorf("of another boot: %+v, %v", h, err)
	}
	path := filepath.Join(d.dir.path, backlogFile)
	for _, c := range []struct {
		what string
		hurt func() error
	}{
		{"of another format", func() error { d.word(atMagic).Store(2 << 56); return nil }},
		{"too long", func() error { d.word(atMagic).Store(backlogMagic); d.progress(linesSize+1, 0); return nil }},
		{"truncated", func() error { return os.Truncate(path, blocksAt-1) }},
		{"a directory", func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }},
		{"a link", func() error { return errors.Join(os.Remove(path), os.Symlink(d.out.Name(), path)) }},
	} {
		if err := c.hurt(); err != nil {
			t.Fatal(err)
		}
		if h, err := recoverBacklog(d.dir, "boot", d.out); h != nil || err == nil {
			t.Errorf("%s: %+v, %v", c.what, h, err)
		}
	}
}

// TestVolatile: where there can be no backlog the output is carried all the same, and
// that is said.
func TestVolatile(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	if err := errors.Join(os.Chmod(dir, 0o700), os.Mkdir(filepath.Join(dir, backlogTemp), 0o700)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	o, err := New(Options{Dir: dir, Out: f})
	if err != nil {
		t.Fatal(err)
	}
	if o.Volatile() == nil {
		t.Error("not said")
	}
	k := Key{Entry: "e"}
	if err := o.Add(k); err != nil {
		t.Fatal(err)
	}
	child, err := os.OpenFile(o.Path(k), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer child.Close()
	write(t, child, "line\nhalf")
	o.Remove(k)
	if err := o.Close(time.Second); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil || strings.Count(string(text), "\n") != 3 || !strings.HasSuffix(string(text), "half\n") {
		t.Errorf("%q, %v", text, err)
	}
}

// TestKeptOverClose: the beginning of a line waits for the daemon that reads its end.
func TestKeptOverClose(t *testing.T) {
	h := newHarness(t, Options{})
	k := Key{Entry: "e"}
	f := h.add(k)
	h.Label(k, 5, 1)
	write(t, f, "whole\nbegin")
	h.wantTexts("e.5             whole")
	next := func(adopt bool) {
		t.Helper()
		out, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", h.reader.out.fd), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		if err := h.Close(time.Second); err != nil {
			t.Fatal(err)
		}
		if h.Output, err = New(Options{Dir: h.dir, Out: out, Err: h.errs}); err != nil {
			t.Fatal(err)
		}
		if adopt {
			if err := h.Adopt(k, 5, 1); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.Sweep(); err != nil {
			t.Fatal(err)
		}
	}
	next(true)
	write(t, f, "ning\nlast")
	h.wantTexts("e.5             beginning")
	next(false) // it is not there any more
	h.wantTexts("e.5             last")
	if err := h.Close(time.Second); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(h.dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// FuzzBacklog reads whatever stands in the file.
func FuzzBacklog(f *testing.F) {
	f.Add(uint64(1<<32|1), uint64(0), uint64(chunkRead|10), uint64(1), uint64(0), []byte{7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9})
	f.Add(uint64(5), uint64(9), uint64(chunkReading|3<<31|5), uint64(1), uint64(1<<40), bytes.Repeat([]byte{1}, 3000))
	f.Fuzz(func(t *testing.T, progress, written, chunk, writing, from uint64, rest []byte) {
		d := newDead(t)
		if _, err := d.take(); err != nil {
			t.Fatal(err)
		}
		copy(d.mem[atOwner:headSize], rest)
		copy(d.mem[chunkAt:blocksAt], rest)
		copy(d.mem[blocksAt:blocksAt+growBlocks*blockSize], rest)
		for at, v := range map[int]uint64{atProgress: progress, atWritten: written, atChunk: chunk, atWriting: writing, atFrom: from} {
			d.word(at).Store(v)
		}
		h, err := recoverBacklog(d.dir, "boot", d.out)
		if err != nil || h == nil {
			return
		}
		for _, p := range h.FIFOs {
			if p.Key.valid() != nil || len(p.Partial) == 0 || p.FD != -1 {
				t.Fatalf("%+v", p)
			}
		}
		o, err := New(Options{Dir: d.dir.path, Out: d.out})
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Close(time.Minute); err != nil {
			t.Fatal(err)
		}
	})
}
