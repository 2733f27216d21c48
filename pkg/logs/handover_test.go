package logs

import (
	"bufio"
	"fmt"
	"os"
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
		defer func() { seen <- next }()
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
		next, err := New(Options{Dir: h.dir, Out: out, Err: h.errs, Handover: handover})
		if err != nil {
			t.Fatal(err)
		}
		// What execve does: all but the handed-over descriptors are closed.
		for _, f := range old.byID {
			f.fd = -1
		}
		old.closeAll()
		h.Output = next
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
