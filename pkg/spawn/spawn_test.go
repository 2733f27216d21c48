package spawn

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newTestPool makes a Pool that is closed at the end of the test, which fails
// if a descriptor is left.
func newTestPool(t testing.TB, o Options, hook func(*Pool)) *Pool {
	t.Helper()
	time.AfterFunc(time.Hour, func() {}).Stop() // the first timer of a process opens two descriptors
	before := openFDs(t)
	p, err := newPool(o, hook)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.killAll()
		p.Close()
		p.waitSpawners()
		if after := openFDs(t); after != before {
			t.Errorf("%d descriptors open after the test, %d before", after, before)
		}
	})
	return p
}

// killAll ends what a failed test left running.
func (p *Pool) killAll() {
	for _, c := range p.Children() {
		_ = p.SignalGroup(c.Token, int(unix.SIGKILL))
	}
}

// waitSpawners returns when a closed Pool has no spawner left.
func (p *Pool) waitSpawners() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.spawners) > 0 {
		p.idle.Wait()
	}
}

func openFDs(t testing.TB) int {
	t.Helper()
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(dir)
}

// events collects events until done says so, and fails the test if that takes long.
func (p *Pool) collectUntil(t testing.TB, done func(all []Event) bool) []Event {
	t.Helper()
	var all []Event
	deadline := time.After(60 * time.Second)
	for {
		all = p.Events(all)
		if done(all) {
			return all
		}
		select {
		case <-p.Ready():
		case <-deadline:
			t.Fatalf("only these events came: %+v", all)
		}
	}
}

// take collects n events.
func (p *Pool) take(t testing.TB, n int) []Event {
	t.Helper()
	return p.collectUntil(t, func(all []Event) bool { return len(all) >= n })
}

func sh(script string) *Spec {
	return &Spec{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}}
}

// tiny writes a program that exits with code 0 at once.
func tiny(t testing.TB) *Spec {
	t.Helper()
	image := tinyELF(runtime.GOARCH)
	if image == nil {
		t.Skip("needs a small program for this architecture")
	}
	path := filepath.Join(t.TempDir(), "tiny")
	if err := os.WriteFile(path, image, 0o755); err != nil {
		t.Fatal(err)
	}
	return &Spec{Path: path, Args: []string{"tiny"}}
}

func TestStartExit(t *testing.T) {
	p := newTestPool(t, Options{}, nil)
	p.Start(7, sh("exit 3"))
	ev := p.take(t, 2)
	if ev[0].Kind != Started || ev[0].Token != 7 || ev[0].PID <= 0 || ev[0].At <= 0 || ev[0].Wall <= 0 {
		t.Errorf("first event: %+v", ev[0])
	}
	if ev[1].Kind != Exited || ev[1].Token != 7 || ev[1].PID != ev[0].PID || !ev[1].Status.Known ||
		ev[1].Status.Code != 3 || !ev[1].GroupEmpty || ev[1].At < ev[0].At {
		t.Errorf("second event: %+v", ev[1])
	}
	if c := p.Children(); len(c) != 0 {
		t.Errorf("children left: %v", c)
	}
}
