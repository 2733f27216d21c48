package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkCapture moves lines of 80 bytes from a FIFO to /dev/null.
func BenchmarkCapture(b *testing.B) {
	for _, c := range []struct {
		name   string
		format Format
	}{{"seed", Seed}, {"logfmt", Logfmt}, {"json", JSON}} {
		b.Run(c.name, func(b *testing.B) { benchCapture(b, c.format) })
	}
}

func benchCapture(b *testing.B, format Format) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	o, err := New(Options{Dir: filepath.Join(b.TempDir(), "log"), Out: null, Format: format})
	if err != nil {
		b.Fatal(err)
	}
	k := Key{Entry: "bench"}
	if err := o.Add(k); err != nil {
		b.Fatal(err)
	}
	o.Label(k, 1234, 1)
	fd, err := unix.Open(o.Path(k), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	chunk := []byte(strings.Repeat(strings.Repeat("l", 79)+"\n", 400))
	b.SetBytes(80)
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N * 80; left > 0; {
		n, err := unix.Write(fd, chunk[:min(left, len(chunk))])
		if err != nil {
			b.Fatal(err)
		}
		left -= n
	}
	o.Remove(k)
	if err := o.Close(time.Minute); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	unix.Close(fd)
	if c := o.Counts("bench"); c.Lines != uint64(b.N) {
		b.Fatalf("%d of %d lines", c.Lines, b.N)
	}
}

// BenchmarkIncarnation is what the owner pays for the output of one start and
// exit: Hold, Begin and End.
func BenchmarkIncarnation(b *testing.B) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	o, err := New(Options{Dir: filepath.Join(b.TempDir(), "log"), Out: null})
	if err != nil {
		b.Fatal(err)
	}
	k := Key{Entry: "bench"}
	if err := o.Add(k); err != nil {
		b.Fatal(err)
	}
	text := fmt.Sprintf("Started at %d.", time.Now().Unix())
	b.ReportAllocs()
	for i := range b.N {
		o.Hold(k)
		o.Begin(Record{Key: k, PID: i + 1, Text: text})
		o.End(Record{Key: k, PID: i + 1, Text: text})
	}
	b.StopTimer()
	if err := o.Close(time.Minute); err != nil {
		b.Fatal(err)
	}
}
