package spawn

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSurvey: a tree of which the main process has ended is told by either, the session
// or what it writes to; one of which nothing lives is not.
func TestSurvey(t *testing.T) {
	dir := t.TempDir()
	for i, c := range []struct {
		name, left string // what the main process leaves
		session    bool
		output     bool
	}{
		{"nothing", "echo", false, false},
		{"in the session", "sleep 1000 >/dev/null & echo", true, false},
		{"elsewhere", "setsid sh -c 'echo; exec sleep 1000' &", false, true},
		{"elsewhere, by standard error", "setsid sh -c 'exec 2>&1 >/dev/null; echo >&2; exec sleep 1000' &", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newTestPool(t, Options{}, nil)
			token := Token(i + 1)
			if err := startShell(p, token, dir, c.left+"\nexec sleep 1000", Place{Marks: []string{fmt.Sprintf("SURVEY=%d", i)}}); err != nil {
				t.Fatal(err)
			}
			pid := p.take(t, 1)[0].PID
			output := filepath.Join(dir, fmt.Sprintf("fifo%d.", token))
			s, err := TakeSurvey()
			if err != nil {
				t.Fatal(err)
			}
			if !s.Left(pid, &Place{Output: output}) {
				t.Error("while the main process writes there")
			}
			if err := signalOne(p, token, int(unix.SIGKILL)); err != nil {
				t.Fatal(err)
			}
			p.take(t, 1)
			if s, err = TakeSurvey(); err != nil {
				t.Fatal(err)
			}
			for _, list := range s.sessions {
				if slices.Contains(list, os.Getpid()) {
					t.Error("this process is among those that could be taken for what is left of a tree")
				}
			}
			if got := s.Left(pid, &Place{}); got != c.session {
				t.Errorf("of its session: %v", got)
			}
			if got := s.Left(0, &Place{Output: output}); got != c.output {
				t.Errorf("of who writes there: %v", got)
			}
		})
	}
}
