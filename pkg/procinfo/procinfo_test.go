package procinfo

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// each collects what Each reports.
func each(r *Reader, pids ...int) map[int]usage {
	got := map[int]usage{}
	r.Each(pids, func(pid int, start uint64, user, system float64, rss int64, fds int) {
		got[pid] = usage{start, user, system, rss, fds}
	})
	return got
}

func TestOurselves(t *testing.T) {
	pid := os.Getpid()
	r := New()
	before := each(r, pid)[pid]
	if before.start == 0 || before.rss < 1<<20 || before.fds < 3 {
		t.Errorf("%+v", before)
	}
	// Work until it shows; the clock is moved so that nothing comes from the cache.
	offset := time.Duration(0)
	r.now = func() time.Time { offset += maxAge; return time.Now().Add(offset) }
	files := []*os.File{}
	for range 20 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		now := each(r, pid)[pid]
		if now.user+now.system > before.user+before.system {
			if now.fds < before.fds+len(files) || now.start != before.start {
				t.Errorf("%+v, before %+v", now, before)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no processor time: %+v, before %+v", now, before)
		}
	}
}

func TestVanished(t *testing.T) {
	cmd := exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	r := New()
	now := time.Now()
	r.now = func() time.Time { return now }
	alive := each(r, pid, -1, 0, 1<<30)
	if len(alive) != 1 || alive[pid].start == 0 {
		t.Errorf("%+v", alive)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff(alive, each(r, pid), cmp.AllowUnexported(usage{})); d != "" {
		t.Errorf("not from the cache within a second: %s", d)
	}
	now = now.Add(maxAge)
	if gone := each(r, pid); len(gone) != 0 {
		t.Errorf("still there: %+v", gone)
	}
	now = now.Add(maxAge)
	if each(r); len(r.cache) != 0 {
		t.Errorf("kept: %+v", r.cache)
	}
}

// fakeProc makes a directory like /proc with the given /proc/PID/stat files.
func fakeProc(t *testing.T, stats map[int]string) *Reader {
	t.Helper()
	root := t.TempDir()
	for pid, stat := range stats {
		dir := filepath.Join(root, strconv.Itoa(pid))
		if err := os.MkdirAll(filepath.Join(dir, "fd", "0"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "stat"), []byte(stat), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := New()
	r.root = root
	return r
}

const tail = "20 0 1 0 %d 9000000 25 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"

func TestFixtures(t *testing.T) {
	page := int64(os.Getpagesize())
	r := fakeProc(t, map[int]string{
		// A name that tries to look like more fields.
		7: "7 (a) Z 1 (b c) S 1 7 7 0 -1 4194304 100 0 0 0 150 25 50 75 " + fmt.Sprintf(tail, 4242),
		8: "8 (dead) Z 1 8 8 0 -1 4194304 100 0 0 0 1 2 0 0 " + fmt.Sprintf(tail, 4243),
		9: "9 (cut) S 1 9",
		// The time of waited-for children has been seen negative in old kernels.
		10: "10 (odd) R 1 10 10 0 -1 4194304 100 0 0 0 100 200 -1 -1 " + fmt.Sprintf(tail, 4244),
		11: "",
	})
	want := map[int]usage{
		7:  {start: 4242, user: 2, system: 1, rss: 25 * page, fds: 1},
		8:  {start: 4243, user: 0.01, system: 0.02},
		10: {start: 4244, user: 1, system: 2, rss: 25 * page, fds: 1},
	}
	if d := cmp.Diff(want, each(r, 7, 8, 9, 10, 11, 12), cmp.AllowUnexported(usage{})); d != "" {
		t.Error(d)
	}
}

func TestNoProc(t *testing.T) {
	r := New()
	r.root = filepath.Join(t.TempDir(), "nothing")
	if got := each(r, os.Getpid()); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestConcurrentScrapes(t *testing.T) {
	r := New()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if got := each(r, os.Getpid()); len(got) != 1 {
					t.Errorf("%+v", got)
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkEach reads 1,000 processes, with an empty cache and a full one.
func BenchmarkEach(b *testing.B) {
	hold, end, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	pids := make([]int, 1000)
	for i := range pids {
		cmd := exec.Command("cat")
		cmd.Stdin = hold
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := end.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
				b.Error(err)
			}
			cmd.Wait()
		})
		pids[i] = cmd.Process.Pid
	}
	hold.Close()
	for name, age := range map[string]time.Duration{"read": maxAge, "cached": 0} {
		b.Run(name, func(b *testing.B) {
			r := New()
			now := time.Now()
			r.now = func() time.Time { return now }
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(age)
				n := 0
				r.Each(pids, func(int, uint64, float64, float64, int64, int) { n++ })
				if n != len(pids) {
					b.Fatalf("%d processes", n)
				}
			}
		})
	}
}
