package spawn

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hangingPool has a file system that hangs on the paths below /hang until it is let go.
func hangingPool(t *testing.T, o Options) (p *Pool, letGo func()) {
	gate := make(chan struct{})
	p = newTestPool(t, o, func(p *Pool) {
		real := p.touch
		p.touch = func(path string) string {
			if filepath.Dir(path) == "/hang" {
				<-gate
			}
			return real(path)
		}
	})
	open := true
	letGo = func() {
		if open {
			close(gate)
			open = false
		}
	}
	t.Cleanup(letGo)
	return p, letGo
}

func TestHang(t *testing.T) {
	p, letGo := hangingPool(t, Options{Spawners: 2, TouchTimeout: time.Second})
	good := static(t, exitWith(7))
	for i := range Token(2) {
		p.Start(i, &Spec{Path: "/hang/a"})
	}
	p.Start(2, good)
	// One spawner's time may be over, and its place taken, before the other's is.
	ev := p.take(t, 4)
	slices.SortStableFunc(ev, func(a, b Event) int { return cmp.Compare(a.Token, b.Token) })
	for i, e := range ev[:2] {
		if e.Kind != StartFailed || *e.Err != (StartError{"open", "/hang/a", syscall.ETIMEDOUT}) {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	if ev[2].Token != 2 || ev[3].Status.Code != 7 {
		t.Errorf("%+v", ev[2:])
	}
	// The same path again fails at once, and does not cost a spawner.
	for i := range Token(100) {
		p.Start(10+i, &Spec{Path: "/hang/a"})
	}
	for _, e := range p.take(t, 100) {
		if e.Kind != StartFailed || e.Err.Errno != syscall.ETIMEDOUT {
			t.Fatalf("%+v", e)
		}
	}
	p.mu.Lock()
	n := len(p.spawners)
	p.mu.Unlock()
	if n > 4 {
		t.Errorf("%d spawners", n)
	}
	letGo()
	// Those that hung come back, and those that are too many end.
	p.mu.Lock()
	for len(p.spawners) != 2 || len(p.stuck) != 0 {
		p.idle.Wait()
	}
	p.mu.Unlock()
	p.Start(1000, &Spec{Path: "/hang/a"})
	if e := p.take(t, 1)[0]; e.Err == nil || e.Err.Errno != syscall.ENOENT {
		t.Errorf("%+v", e)
	}
}

func TestHangMany(t *testing.T) {
	p, letGo := hangingPool(t, Options{Spawners: 2, TouchTimeout: 200 * time.Millisecond})
	const n = 40
	for i := range Token(n) {
		p.Start(i, &Spec{Path: fmt.Sprintf("/hang/%d", i)})
	}
	timedOut := 0
	for _, e := range p.take(t, n) {
		switch {
		case e.Kind == StartFailed && e.Err.Errno == syscall.ETIMEDOUT:
			timedOut++
		case e.Kind == StartFailed && e.Err.Errno == syscall.EAGAIN: // nobody left
		default:
			t.Errorf("%+v", e)
		}
	}
	p.mu.Lock()
	spawners := len(p.spawners)
	p.mu.Unlock()
	if spawners > maxStuck+2 || timedOut < maxStuck {
		t.Errorf("%d spawners, %d timed out", spawners, timedOut)
	}
	p.Start(n, static(t, exitWith(0)))
	if e := p.take(t, 1)[0]; e.Kind != StartFailed || e.Err.Errno != syscall.EAGAIN {
		t.Errorf("%+v", e)
	}
	letGo()
	p.mu.Lock()
	for len(p.stuck) > 0 {
		p.idle.Wait()
	}
	p.mu.Unlock()
	p.Start(n+1, static(t, exitWith(0)))
	p.take(t, 2)
}

// TestHungFileSystem uses a real one: FUSE, and nobody that answers.
func TestHungFileSystem(t *testing.T) {
	for _, test := range []struct {
		name  string
		touch bool
		attr  *Attributes
	}{
		{"touched", true, nil},
		{"not touched", false, nil},
		{"not touched, with a score", false, &Attributes{OOMScoreAdj: new(int)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			touch := test.touch
			p := newTestPool(t, Options{Spawners: 1, TouchTimeout: time.Second}, func(p *Pool) {
				if !touch {
					p.touch = func(string) string { return "" }
				}
			})
			if !touch && p.fork {
				t.Skip("needs clone3(2)")
			}
			dir := t.TempDir()
			fuse, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Skipf("needs /dev/fuse: %v", err)
			}
			unmount := sync.OnceFunc(func() {
				unix.Close(fuse) // what waits fails now
				_ = unix.Unmount(dir, unix.MNT_DETACH)
			})
			t.Cleanup(unmount)
			options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d", fuse, os.Getuid(), os.Getgid())
			if err := unix.Mount("test", dir, "fuse", 0, options); err != nil {
				t.Skipf("needs root: mount: %v", err)
			}
			path := dir + "/program"
			p.Start(1, &Spec{Path: path, Attributes: test.attr})
			p.Start(2, static(t, exitWith(3)))
			ev := p.take(t, 3)
			slices.SortStableFunc(ev, func(a, b Event) int { return cmp.Compare(a.Token, b.Token) })
			op := map[bool]string{true: "open", false: "exec"}[touch]
			if ev[0].Kind != StartFailed || *ev[0].Err != (StartError{op, path, syscall.ETIMEDOUT}) {
				t.Errorf("%+v", ev[0])
			}
			if ev[1].Token != 2 || ev[2].Status.Code != 3 {
				t.Errorf("%+v", ev[1:])
			}
			unmount()
			back := func() bool {
				p.mu.Lock()
				defer p.mu.Unlock()
				free := len(p.flights.free)
				return len(p.spawners) == 1 && len(p.stuck) == 0 && (p.fork || free == maxFlights && p.flights.hanging == 0)
			}
			for !back() {
				p.Wait(10 * time.Millisecond)
			}
		})
	}
}

func TestPause(t *testing.T) {
	p := newTestPool(t, Options{}, nil)
	spec := static(t, exitWith(0))
	var all []Event
	unstarted := make(map[Token]bool)
	const rounds, n = 50, 40
	for round := range Token(rounds) {
		for i := range Token(n) {
			p.Start(round*n+i, spec)
		}
		all = append(all, p.take(t, 1)...)
		for _, token := range p.Pause() {
			if unstarted[token] {
				t.Fatalf("token %d came back twice", token)
			}
			unstarted[token] = true
		}
		// Nothing starts any more.
		all = p.Events(all)
		p.Start(1_000_000+round, spec)
		for _, e := range p.Events(nil) {
			if e.Kind != Exited {
				t.Fatalf("while paused: %+v", e)
			}
			all = append(all, e)
		}
		if got := p.Pause(); len(got) != 1 || got[0] != 1_000_000+round {
			t.Fatalf("%v", got)
		}
		p.Resume()
	}
	started, exited := make(map[Token]int), make(map[Token]int)
	done := func(ev []Event) bool {
		clear(started)
		clear(exited)
		for _, e := range append(all[:len(all):len(all)], ev...) {
			switch e.Kind {
			case Started:
				started[e.Token]++
			case Exited:
				if started[e.Token] != 1 {
					t.Fatalf("exit before start: %+v", e)
				}
				exited[e.Token]++
			default:
				t.Fatalf("%+v", e)
			}
		}
		return len(exited)+len(unstarted) == rounds*n
	}
	p.until(t, done)
	for token := range Token(rounds * n) {
		if unstarted[token] == (started[token] == 1) || started[token] != exited[token] {
			t.Errorf("token %d: unstarted %v, started %d, exited %d", token, unstarted[token], started[token], exited[token])
		}
	}
	if len(started) == 0 || len(unstarted) == 0 {
		t.Errorf("%d started, %d not: nothing was shown", len(started), len(unstarted))
	}
}

// TestPauseAtExec: a child that comes to its program while Pause looks has started.
func TestPauseAtExec(t *testing.T) {
	p := newTestPool(t, Options{}, nil)
	spec := static(t, pause())
	var token Token
	rounds := 60
	if testing.Short() {
		rounds = 12 // emulated, each takes a second
	}
	for round := range rounds {
		first := token
		for range maxFlights {
			p.Start(token, spec)
			token++
		}
		p.Wait(time.Duration(400*round/rounds) * time.Microsecond)
		unstarted := p.Pause()
		started := 0
		for _, e := range p.Events(nil) {
			if e.Kind == Started {
				started++
			}
		}
		if started+len(unstarted) != int(token-first) {
			t.Fatalf("round %d: %d started, %d will not", round, started, len(unstarted))
		}
		p.Resume()
		p.killAll()
	}
}

// TestCloseBeforeClone: a spawner that is at it when the Pool is closed leaves nothing.
func TestCloseBeforeClone(t *testing.T) {
	at, on := make(chan struct{}), make(chan struct{})
	g := testCgroups(t)
	p := newTestPool(t, Options{Spawners: 1, Step: func(name string) {
		if name == "clone" {
			close(at)
			<-on
		}
	}}, nil)
	spec := static(t, exitWith(0))
	spec.Place.Cgroup = g.Path("a")
	p.Start(1, spec)
	<-at
	if err := os.Remove(spec.Place.Cgroup); err != nil { // so that the clone fails
		t.Fatal(err)
	}
	p.Close()
	close(on)
	p.waitSpawners()
}

// TestPauseHanging: a spawner that hangs does not hold up Pause, and its job comes back.
func TestPauseHanging(t *testing.T) {
	p, letGo := hangingPool(t, Options{TouchTimeout: time.Hour})
	p.Start(1, &Spec{Path: "/hang/a"})
	p.Start(2, &Spec{Path: "/hang/a"})
	p.mu.Lock()
	for !p.queue.empty() {
		p.mu.Unlock()
		p.mu.Lock()
	}
	p.mu.Unlock()
	got := p.Pause()
	if len(got) != 2 {
		t.Fatalf("%v", got)
	}
	p.Resume()
	letGo()
	p.Start(3, static(t, exitWith(0)))
	if ev := p.take(t, 2); ev[0].Token != 3 || ev[1].Token != 3 {
		t.Errorf("%+v", ev)
	}
}
