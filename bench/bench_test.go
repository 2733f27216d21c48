package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// testRig builds the floors alone: the benchmark's own machinery is tested on
// them, sentryd is not needed.
func testRig(t *testing.T) *rig {
	t.Helper()
	if _, err := exec.LookPath("cc"); err != nil {
		t.Skip("needs cc: to build the floor and its child")
	}
	r, err := newRig(t.Context(), &options{children: 20, rounds: 1, only: regexp.MustCompile("^(C|Go) floor$")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	if len(r.contenders) != 2 {
		t.Fatalf("%d contenders, want the two floors", len(r.contenders))
	}
	return r
}

// Each scenario that a floor can play gives every figure that it declares.
func TestScenariosOnTheFloors(t *testing.T) {
	r := testRig(t)
	open := countFiles(t)
	short := map[string]func(context.Context, *rig, *contender) (map[string]float64, error){
		"attributes": stormScenario{slots: 4, warm: time.Millisecond, window: 50 * time.Millisecond, attributes: true}.run,
		"storm":      stormScenario{slots: 4, warm: time.Millisecond, window: 50 * time.Millisecond}.run,
		"latency":    latencyScenario{slots: 4, life: 10 * time.Millisecond, samples: 20}.run,
		"many":       many,
		"idle":       idleScenario{time.Millisecond, 50 * time.Millisecond}.run,
	}
	for _, s := range scenarios(&options{rounds: 1, children: r.children}) {
		play := short[s.name]
		if play == nil {
			continue
		}
		for _, c := range r.contenders {
			figures, err := play(t.Context(), r, c)
			if err != nil {
				t.Errorf("%s, %s: %v", s.name, c.name, err)
				continue
			}
			for _, m := range s.metrics {
				if v, ok := figures[m.name]; !ok || v < 0 {
					t.Errorf("%s, %s: %s = %v, %v", s.name, c.name, m.name, v, ok)
				}
			}
			if len(figures) != len(s.metrics) {
				t.Errorf("%s, %s: %d figures, want %d", s.name, c.name, len(figures), len(s.metrics))
			}
		}
	}
	if now := countFiles(t); now != open {
		t.Errorf("%d descriptors open, %d before", now, open)
	}
}

// A contender that ends is an error at once, not a timeout, and says what it
// printed.
func TestContenderThatEnds(t *testing.T) {
	r := testRig(t)
	c := &contender{name: "ends", keepOutput: true, prepare: func(string, job, func(string) []string) ([]string, error) {
		return []string{"/bin/sh", "-c", "echo no such thing; exit 3"}, nil
	}}
	_, err := many(t.Context(), r, c)
	if err == nil || !strings.Contains(err.Error(), "no such thing") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error %v", err)
	}
}

// Whatever becomes of a contender, its children do not outlive its instance.
func TestCloseAfterTheContenderWasKilled(t *testing.T) {
	r := testRig(t)
	in, err := r.launch(r.contenders[0], job{slots: 5, mode: "stay"})
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			in.close()
		}
	}()
	if err := in.up(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	children, err := in.hold()
	if err != nil {
		t.Fatal(err)
	}
	defer release(children)
	if err := in.signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := in.wait(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	for i, c := range children {
		if c.ended() {
			t.Errorf("child %d ended with its supervisor: the test shows nothing", i)
		}
	}
	closed = true
	if err := in.close(); err != nil {
		t.Error(err)
	}
	for i, c := range children {
		if !c.ended() {
			t.Errorf("child %d is still there", i)
		}
	}
}

// A stranger's pid is never taken for a child.
func TestOpenChildVerifies(t *testing.T) {
	for _, pid := range []int{-1, 0, 1, 1 << 30} {
		if c, err := openChild(pid, 1); err == nil {
			unix.Close(c.pidfd)
			t.Errorf("openChild(%d) succeeded", pid)
		}
	}
	self, parent := unix.Getpid(), unix.Getppid()
	c, err := openChild(self, parent)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(c.pidfd)
	if c, err := openChild(self, self); err == nil {
		unix.Close(c.pidfd)
		t.Error("openChild took a process that is no child of that parent")
	}
}

func countFiles(t *testing.T) int {
	t.Helper()
	n, err := openFiles(unix.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// What a program is not to see is hidden from it alone.
func TestHiding(t *testing.T) {
	testenv.Need(t, testenv.Root())
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "there"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd := exec.Command("ls", "-A", dir)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := hiding(dir)(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || out.Len() > 0 {
		t.Errorf("it sees %q: %v", out.String(), err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("hidden from us: %v, %v", list, err)
	}
}
