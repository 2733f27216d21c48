package spawn

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// deadly lists the signals whose default ends a process.
func deadly() []int {
	var l []int
	for sig := 1; sig <= lastSignal; sig++ {
		switch unix.Signal(sig) {
		case unix.SIGCHLD, unix.SIGCONT, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGURG, unix.SIGWINCH:
		default:
			l = append(l, sig)
		}
	}
	return l
}

// TestExact starts 100,000 children that end in every possible way.
func TestExact(t *testing.T) {
	n := 100_000
	if testing.Short() {
		n = 1_000
	}
	noCore(t)
	p := newTestPool(t, Options{}, nil)
	specs := make([]*Spec, 0, 256+lastSignal)
	for code := range 256 {
		specs = append(specs, static(t, exitWith(byte(code))))
	}
	sigs := deadly()
	waiting := static(t, pause())
	want := func(token Token) (code, sig int) {
		k := int(token) % (256 + len(sigs))
		if k < 256 {
			return k, 0
		}
		return 0, sigs[k-256]
	}
	var buf []Event
	next, live, exits := 0, 0, 0
	state := make([]Kind, n)
	for exits < n {
		for next < n && live < 16 {
			if code, sig := want(Token(next)); sig == 0 {
				p.Start(Token(next), specs[code])
			} else {
				p.Start(Token(next), waiting)
			}
			next++
			live++
		}
		if buf = p.Events(buf[:0]); len(buf) == 0 {
			p.Wait(-1)
		}
		for _, e := range buf {
			code, sig := want(e.Token)
			switch {
			case e.Kind == Started && state[e.Token] == 0:
				if sig != 0 {
					if err := signalOne(p, e.Token, sig); err != nil {
						t.Fatal(err)
					}
				}
			case e.Kind == Exited && state[e.Token] == Started:
				live--
				exits++
				if st := e.Status; !st.Known || st.Code != code || st.Signal != sig || !e.TreeEmpty {
					t.Fatalf("want code %d, signal %d: %+v", code, sig, e)
				}
			default:
				t.Fatalf("after %v: %+v, %v", state[e.Token], e, e.Err)
			}
			state[e.Token] = e.Kind
		}
	}
}

// noCore forbids core dumps, which children inherit.
func noCore(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_CORE, &old) })
}

// TestExitsAtOnce lets 1,000 children exit at the same moment.
func TestExitsAtOnce(t *testing.T) {
	everyTree(t, func(t *testing.T, p *Pool, place Place) {
		n := 1000
		if testing.Short() {
			n = 100
		}
		fifo := filepath.Join(t.TempDir(), "fifo")
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := os.OpenFile(fifo, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		for i := range Token(n) {
			spec := sh(fmt.Sprintf("read x; exit %d", i%256))
			spec.Stdin = Stdio{Path: fifo, Flags: unix.O_RDONLY}
			if spec.Place = place; place.Cgroup != "" {
				spec.Place.Cgroup = filepath.Dir(place.Cgroup) + fmt.Sprintf("/test:%d", i)
			}
			p.Start(i, spec)
		}
		p.take(t, n)
		w.Close() // end of file for all of them
		seen := make(map[Token]bool)
		for _, e := range p.take(t, n) {
			if e.Kind != Exited || e.Status.Code != int(e.Token%256) || seen[e.Token] {
				t.Fatalf("%+v", e)
			}
			seen[e.Token] = true
		}
	})
}

// TestManyChildren has 10,000 of them.
func TestManyChildren(t *testing.T) {
	n := 10_000
	if testing.Short() {
		n = 300
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || l.Cur < uint64(n)+100 {
		t.Skipf("needs %d descriptors, has %d", n+100, l.Cur)
	}
	p := newTestPool(t, Options{}, nil)
	fds, routines := openFDs(t), runtime.NumGoroutine()
	spec := static(t, pause())
	for i := range Token(n) {
		p.Start(i, spec)
	}
	for _, e := range p.take(t, n) {
		if e.Kind != Started {
			t.Fatalf("%+v, %v", e, e.Err)
		}
	}
	if got := openFDs(t) - fds; got != n {
		t.Errorf("%d descriptors for %d children", got, n)
	}
	if got := runtime.NumGoroutine(); got > routines {
		t.Errorf("%d goroutines, %d before", got, routines)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	if len(tasks) >= 50 {
		t.Errorf("%d threads", len(tasks))
	}
	for i := range Token(n) {
		if err := p.SignalGroup(i, int(unix.SIGTERM)); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range p.take(t, n) {
		if e.Kind != Exited || e.Status.Signal != int(unix.SIGTERM) {
			t.Fatalf("%+v", e)
		}
	}
}

// TestStress starts children while the garbage collector never rests, stacks
// move, and signals arrive.
func TestStress(t *testing.T) {
	n := 20_000
	if testing.Short() {
		n = 1_000
	}
	defer debug.SetGCPercent(debug.SetGCPercent(1))
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, unix.SIGUSR1, unix.SIGWINCH)
	defer signal.Stop(caught)
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(self) })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.PidfdSendSignal(self, unix.SIGUSR1, nil, 0)
				_ = unix.PidfdSendSignal(self, unix.SIGURG, nil, 0) // preempts
				deep(200)
			}
		}
	})
	p := newTestPool(t, Options{}, nil)
	storm(t, p, slots(static(t, exitWith(0)), 8), n)
	close(stop)
	wg.Wait()
}

// deep makes its goroutine's stack grow, and garbage.
func deep(n int) []byte {
	var pad [256]byte
	if n == 0 {
		return append([]byte(nil), pad[:]...)
	}
	return append(deep(n-1), pad[n%256])
}
