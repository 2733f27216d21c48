package sockets

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// hanging is a set whose visits of the directory "hang" wait until they are let go.
func hanging(t *testing.T) (s *Set, dir string, letGo func()) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "hang")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	gate := make(chan struct{})
	s = NewSet()
	s.before = func(path string) {
		if filepath.Dir(path) == dir {
			<-gate
		}
	}
	return s, dir, sync.OnceFunc(func() { close(gate) })
}

// answers collects what Open tells.
type answers struct {
	fds    []int
	opened bool
	errs   []error
}

func (a *answers) take(fds []int, opened bool, err error) {
	a.fds, a.opened, a.errs = append(a.fds, fds...), opened, append(a.errs, err)
}

// pass lets fake time go by, and takes what came of it.
func pass(s *Set, d time.Duration) {
	<-time.After(d)
	synctest.Wait()
	select {
	case <-s.Ready():
		s.Take()
	default:
	}
}

// TestHungFile: whoever needs the file of a socket on a file system that hangs is
// told so in time, others do not notice, and when it answers all is as it was asked for.
func TestHungFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dir, letGo := hanging(t)
		path, other := filepath.Join(dir, "s"), filepath.Join(filepath.Dir(dir), "s")
		hung, good, late := new(answers), new(answers), new(answers)
		s.Open([]Want{{Spec: mine(Unix, path)}, {Spec: mine(Unix, other)}}, hung.take)
		pass(s, time.Second)
		s.Open([]Want{{Spec: mine(Unix, other)}}, good.take)
		s.Open([]Want{{Spec: mine(Unix, path)}}, late.take)
		pass(s, time.Second)
		if len(good.fds) != 1 || len(hung.errs) != 0 {
			t.Errorf("after 2 s: %+v, %+v", good, hung)
		}
		pass(s, patience-2*time.Second)
		if len(hung.errs) != 1 {
			t.Fatalf("after %v: %+v", patience, hung)
		}
		wantErrno(t, hung.errs[0], "bind", unix.ETIMEDOUT, "unix:"+path)
		if len(late.errs) != 0 {
			t.Errorf("who asked a second later is told already: %+v", late)
		}
		letGo()
		pass(s, 0)
		pass(s, 0) // of the second request
		// It was opened for the first one, who was told nothing of that.
		if len(late.fds) != 1 || !late.opened || late.errs[0] != nil || len(hung.errs) != 1 {
			t.Fatalf("when it answers: %+v, %+v", late, hung)
		}
		reach(t, listener(t, late.fds[0]), Unix, path)
		s.Close()
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 || len(s.open) > 0 {
			t.Errorf("after the end: %v, %v (%v)", left, s.open, err)
		}
	})
}

// TestDroppedWhileItHangs: what nobody wants any more is not there when the file
// system answers, and what is wanted again is.
func TestDroppedWhileItHangs(t *testing.T) {
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprintf("again=%v", again), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dir, letGo := hanging(t)
				spec := mine(Unix, filepath.Join(dir, "s"))
				first, second := new(answers), new(answers)
				s.Open([]Want{{Spec: spec}}, first.take)
				s.Retain(nil)
				if again {
					s.Open([]Want{{Spec: spec}}, second.take)
				}
				letGo()
				for range 3 {
					pass(s, 0)
				}
				if len(first.errs) != 1 || len(second.fds) != btoi(again) || has(s, spec, 0) != again {
					t.Errorf("%+v, %+v, open %v", first, second, s.open)
				}
				if _, err := os.Lstat(spec.Address); errors.Is(err, os.ErrNotExist) == again {
					t.Errorf("the file: %v", err)
				}
				s.Close()
			})
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestManyHungFiles: not every file that hangs costs a thread, and nothing is lost.
func TestManyHungFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dir, letGo := hanging(t)
		const n = 5 * maxVisits
		all := new(answers)
		var specs []*Spec
		for i := range n {
			specs = append(specs, mine(Unix, filepath.Join(dir, fmt.Sprint(i))))
			s.Open([]Want{{Spec: specs[i]}}, all.take)
		}
		if s.visits != maxVisits {
			t.Errorf("%d visits", s.visits)
		}
		pass(s, patience)
		if len(all.errs) != n || slices.ContainsFunc(all.errs, func(err error) bool { return !errors.Is(err, unix.ETIMEDOUT) }) {
			t.Errorf("%d answers: %v", len(all.errs), all.errs)
		}
		letGo()
		again := new(answers)
		for _, spec := range specs {
			s.Open([]Want{{Spec: spec}}, again.take)
		}
		settle(s)
		if len(again.fds) != n {
			t.Errorf("when it answers: %+v", again)
		}
		s.Close()
	})
}

// TestCloseGivesUp: the end of a daemon does not wait for a file system for ever.
func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dir, letGo := hanging(t)
		s.Open([]Want{{Spec: mine(Unix, filepath.Join(dir, "s"))}}, new(answers).take)
		began := time.Now()
		s.Close()
		if took := time.Since(began); took != patience {
			t.Errorf("it took %v", took)
		}
		letGo()
		settle(s)
		if len(s.open) > 0 {
			t.Errorf("open: %v", s.open)
		}
	})
}
