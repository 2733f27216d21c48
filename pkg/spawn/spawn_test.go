package spawn

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain runs a helper instead of the tests if it is asked to: some tests
// need a process with limits or a user of its own.
func TestMain(m *testing.M) {
	if name := os.Getenv("SPAWN_TEST_HELPER"); name != "" {
		if err := helpers[name](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// newTestPool makes a Pool that is closed at the end of the test, which fails
// if a descriptor or a goroutine is left.
func newTestPool(t testing.TB, o Options, hook func(*Pool)) *Pool {
	t.Helper()
	return closedAtEnd(t, func() (*Pool, error) { return newPool(o, hook) })
}

// closedAtEnd is newTestPool for a Pool that is made in another way.
func closedAtEnd(t testing.TB, create func() (*Pool, error)) *Pool {
	t.Helper()
	time.AfterFunc(time.Hour, func() {}).Stop() // the first timer of a process opens two descriptors
	c := make(chan os.Signal, 1)                // and the first wish for a signal makes a goroutine
	signal.Notify(c, unix.SIGCHLD)
	signal.Stop(c)
	fds, routines := openFDs(t), runtime.NumGoroutine()
	p, err := create()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.killAll()
		p.Close()
		p.waitSpawners()
		// The walker of another Pool may have given up its reserve for a moment.
		for end := time.Now().Add(10 * time.Second); openFDs(t) != fds; runtime.Gosched() {
			if time.Now().After(end) {
				t.Errorf("%d descriptors open after the test, %d before", openFDs(t), fds)
				break
			}
		}
		for runtime.NumGoroutine() > routines {
			runtime.Gosched() // those that have returned are counted until they are gone
		}
	})
	return p
}

// killAll ends what a test left running, and waits until it is gone: its cgroup
// can not be removed before.
func (p *Pool) killAll() {
	for {
		list := p.Children()
		if len(list) == 0 {
			return
		}
		for _, c := range list {
			_ = p.SignalTree(c.Token, int(unix.SIGKILL))
		}
		p.Wait(-1)
		p.Events(nil)
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

// until collects events until done says so, and fails the test if that takes long.
func (p *Pool) until(t testing.TB, done func(all []Event) bool) []Event {
	t.Helper()
	var all []Event
	deadline := time.Now().Add(time.Minute)
	for {
		all = p.Events(all)
		if done(all) {
			return all
		}
		p.Wait(time.Until(deadline))
		if time.Now().After(deadline) {
			t.Fatalf("only %d events came, the last: %+v", len(all), all[max(0, len(all)-5):])
		}
	}
}

// take collects n events.
func (p *Pool) take(t testing.TB, n int) []Event {
	t.Helper()
	return p.until(t, func(all []Event) bool { return len(all) >= n })
}

// startShell starts a shell script and returns when it has written a line and
// Started is queued.
func startShell(p *Pool, token Token, dir, script string, place Place) error {
	spec := sh(script)
	spec.Place = place
	spec.Env = append(spec.Env, place.Marks...)
	spec.Stdout = Stdio{Path: filepath.Join(dir, fmt.Sprintf("fifo%d.out", token)), Flags: unix.O_RDWR}
	if err := unix.Mkfifo(spec.Stdout.Path, 0o600); err != nil {
		return err
	}
	fifo, err := os.OpenFile(spec.Stdout.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer fifo.Close()
	p.Start(token, spec)
	if err := fifo.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	told := make(chan error, 1)
	go func() {
		_, err := fifo.Read(make([]byte, 1))
		told <- err
		p.Wake()
	}()
	for {
		select {
		case err := <-told:
			// It may be faster than its spawner.
			p.mu.Lock()
			defer p.mu.Unlock()
			p.awaitSpawners()
			p.lookAtFlights()
			return err
		default:
			p.Wait(time.Second)
		}
	}
}

func sh(script string) *Spec {
	return &Spec{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}}
}

// static writes a static program.
func static(t testing.TB, code []byte) *Spec {
	t.Helper()
	if code == nil {
		t.Skip("needs machine code for " + runtime.GOARCH)
	}
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, staticELF(runtime.GOARCH, code), 0o755); err != nil {
		t.Fatal(err)
	}
	return &Spec{Path: path}
}

// exitWith is machine code that ends with this exit code.
func exitWith(code byte) []byte {
	switch runtime.GOARCH {
	case "amd64":
		return []byte{0xb8, 0xe7, 0, 0, 0, 0xbf, code, 0, 0, 0, 0x0f, 0x05} // mov eax, 231; mov edi, code; syscall
	case "arm64":
		return []byte{
			0xc8, 0x0b, 0x80, 0xd2, // mov x8, 94
			code << 5, code >> 3, 0x80, 0xd2, // mov x0, code
			0x01, 0x00, 0x00, 0xd4,
		}
	}
	return nil
}

// pause is machine code that waits for a signal, for ever.
func pause() []byte {
	switch runtime.GOARCH {
	case "amd64":
		return []byte{0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7} // mov eax, 34 (pause); syscall; jmp
	case "arm64":
		return []byte{
			0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2, // mov x0…x3, 0
			0x28, 0x09, 0x80, 0xd2, // mov x8, 73 (ppoll)
			0x01, 0x00, 0x00, 0xd4,
			0xfa, 0xff, 0xff, 0x17, // b start
		}
	}
	return nil
}
