package logs

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHandovers: numbered lines come through fifty hand-overs while the
// writers go on, none lost, doubled or cut, the lines of the daemon among
// them, and no descriptor is left behind.
func TestHandovers(t *testing.T) {
	const rounds, writers = 50, 4
	h := newHarness(t, Options{})
	stop := make(chan struct{})
	finals := make(chan int, writers)
	for w := range writers {
		k := Key{Entry: "w", Slot: w}
		f := h.add(k)
		h.Label(k, w+1, 1)
		go func() {
			n := 0
			for ; ; n++ {
				select {
				case <-stop:
					finals <- n
					return
				default:
				}
				// In two writes, so that hand-overs find partial lines.
				fmt.Fprintf(f, "%d:", w)
				fmt.Fprintf(f, "%d\n", n)
			}
		}()
	}
	seen := make(chan [writers + 1]int)
	h.read.SetReadDeadline(time.Time{})
	go func() {
		var next [writers + 1]int
		defer func() {
			seen <- next
			io.Copy(io.Discard, h.read) // after an error, so that the writers end
		}()
		in := bufio.NewScanner(h.read)
		for in.Scan() {
			if strings.HasSuffix(in.Text(), "end") {
				return
			}
			_, text, _ := strings.Cut(in.Text(), " ")
			var pid, w, n int
			if _, err := fmt.Sscanf(text, "w.%d %d:%d", &pid, &w, &n); err != nil {
				if _, err := fmt.Sscanf(in.Text(), "hand-over %d", &n); err != nil {
					t.Errorf("%q: %v", in.Text(), err)
					return
				}
				w, pid = writers, writers+1
			}
			if pid != w+1 || next[w] != n {
				t.Errorf("%q: want %d of %d", in.Text(), next[w], w)
				return
			}
			next[w]++
		}
	}()
	out, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", h.reader.out.fd), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	fds := openFDs(t)
	for i := range rounds {
		h.Print(Record{Text: fmt.Sprintf("hand-over %d", i)})
		handover, err := h.Pause()
		if err != nil {
			t.Fatal(err)
		}
		if i%5 == 4 { // the execve failed
			h.Resume()
			continue
		}
		old := h.Output
		next, err := New(Options{Dir: h.dir, Out: out, Err: h.errs, Handover: func() *Handover { return handover }})
		if err != nil {
			t.Fatal(err)
		}
		// What execve does: all but the handed-over descriptors are closed.
		for _, f := range old.byID {
			f.fd = -1
		}
		old.closeAll()
		h.Output = next
		if err := next.Volatile(); err != nil { // and wait until all is taken over
			t.Fatal(err)
		}
		if n := openFDs(t); n != fds {
			t.Fatalf("round %d: %d descriptors, %d before", i, n, fds)
		}
	}
	close(stop)
	var wrote [writers]int
	for range writers {
		<-finals
	}
	for w := range writers {
		h.Remove(Key{Entry: "w", Slot: w})
	}
	h.Print(Record{Text: "end"})
	next := <-seen
	total := uint64(0)
	for w := range wrote {
		if next[w] == 0 {
			t.Errorf("writer %d: nothing seen", w)
		}
		total += uint64(next[w])
	}
	if next[writers] != rounds {
		t.Errorf("%d lines of the daemon", next[writers])
	}
	if c := h.Counts("w"); c.Lines != total {
		t.Errorf("%d lines counted, %d seen", c.Lines, total)
	}
}

// TestResume: what came while the output was paused is printed when execve has
// failed; only one Pause at a time.
func TestResume(t *testing.T) {
	h := newHarness(t, Options{})
	k := Key{Entry: "e"}
	f := h.add(k)
	write(t, f, "before\nhalf a ")
	h.wantTexts("e               before")
	h.Hold(k)
	write(t, f, "held\n")
	handover, err := h.Pause()
	if err != nil {
		t.Fatal(err)
	}
	if p := handover.FIFOs[0]; !p.Held || p.Key != k || len(p.Partial) != 0 || len(handover.Out) != 0 {
		t.Errorf("%+v", handover)
	}
	if _, err := h.Pause(); err == nil {
		t.Error("paused twice")
	}
	write(t, f, "while paused\n")
	h.Begin(Record{Key: k, PID: 3, Text: "Started."})
	h.Resume()
	h.wantTexts("e               half a ", "e.3             Started.", "e.3             held", "e.3             while paused")
	write(t, f, "after\n")
	h.wantTexts("e.3             after")
}

// TestBadHandover: descriptors that are not what they should be are left alone
// and said; the rest is taken over.
func TestBadHandover(t *testing.T) {
	h := newHarness(t, Options{})
	k := Key{Entry: "e"}
	handover := &Handover{
		FIFOs: []HandoverFIFO{
			{Key: k, FD: int(h.errs.Fd())},
			{Key: k, FD: 1 << 20},
			{Key: Key{Entry: "../e"}, FD: int(h.errs.Fd())},
		},
		Entries: map[string]Counts{"e": {Bytes: 10, Lines: 2}},
		Dropped: 5,
		Out:     []byte("from before\n"),
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	o, err := New(Options{Dir: h.dir, Out: out, Err: h.errs, Handover: func() *Handover { return handover }})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Add(k); err != nil {
		t.Error(err)
	}
	if o.Counts("e") != (Counts{Bytes: 10, Lines: 2}) || o.Stats().Dropped != 5 {
		t.Errorf("%+v %+v", o.Counts("e"), o.Stats())
	}
	o.Print(Record{Text: "from now"})
	if err := o.Close(time.Second); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(out.Name()); string(got) != "from before\nfrom now\n" {
		t.Errorf("%q", got)
	}
	if said, _ := os.ReadFile(h.errs.Name()); strings.Count(string(said), "not handed over") != 3 {
		t.Errorf("%q", said)
	}
}
