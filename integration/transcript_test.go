package integration

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sentryd/sentryd/internal/testenv"
)

// A transcript is what a daemon prints, to be waited on. It may be written to
// and read from several goroutines.
type transcript struct {
	t      *testing.T
	runDir string

	mu    sync.Mutex
	text  strings.Builder
	more  chan struct{} // closed and replaced when text grows or ends
	ended bool
}

func newTranscript(t *testing.T, runDir string) *transcript {
	return &transcript{t: t, runDir: runDir, more: make(chan struct{})}
}

// Write appends to the transcript, which makes it a writer for os/exec.
func (r *transcript) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.Write(p)
	r.wake()
	return len(p), nil
}

// close says that nothing more will come.
func (r *transcript) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	r.wake()
}

func (r *transcript) wake() {
	close(r.more)
	r.more = make(chan struct{})
}

// String is all that was printed so far, with the usual runtime directory in
// the place of the test's.
func (r *transcript) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.printed()
}

func (r *transcript) printed() string {
	return strings.ReplaceAll(r.text.String(), r.runDir, "/run/sentryd")
}

// state returns the complete lines so far and a channel that tells of more.
func (r *transcript) state() (lines []string, ended bool, more <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines = strings.Split(r.printed(), "\n")
	return lines[:len(lines)-1], r.ended, r.more
}

// expect waits until the lines have come, in this order, whatever came between
// them.
func (r *transcript) expect(want ...string) {
	r.t.Helper()
	deadline := time.NewTimer(testenv.Slow(30 * time.Second))
	defer deadline.Stop()
	for {
		lines, ended, more := r.state()
		missing := inOrder(want, lines)
		if missing == "" {
			return
		}
		if ended {
			r.t.Fatalf("the daemon ended before it printed\n%s\nit printed\n%s", missing, r)
		}
		select {
		case <-more:
		case <-deadline.C:
			r.t.Fatalf("after 30 s there is no line\n%s\nin\n%s", missing, r)
		}
	}
}

// until waits until ok is true, which may change whenever more is printed.
func (r *transcript) until(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		_, ended, more := r.state()
		if ok() {
			return
		}
		if ended {
			r.t.Fatalf("the daemon ended before there was %s\n%s", what, r)
		}
		select {
		case <-more:
		case <-deadline.C:
			r.t.Fatalf("after %v there is not %s\n%s", patience, what, r)
		}
	}
}

// inOrder returns the first line of want that is not in lines behind the one
// before it, or "".
func inOrder(want, lines []string) string {
	for _, w := range want {
		pattern := linePattern(w)
		found := false
		for i, line := range lines {
			if pattern.MatchString(line) {
				lines, found = lines[i+1:], true
				break
			}
		}
		if !found {
			return w
		}
	}
	return ""
}
