package api

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentryd/sentryd/pkg/view"
)

func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "api") // t.TempDir() may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newListeners(t *testing.T, changed func()) *Listeners {
	t.Helper()
	ls := NewListeners(new(house).withLog().logger(), changed)
	t.Cleanup(ls.Close)
	return ls
}

func (h *house) withLog() *house {
	h.log = new(logBuffer)
	return h
}

func TestControlSocket(t *testing.T) {
	path := filepath.Join(socketDir(t), "control.sock")
	ls := newListeners(t, nil)
	if err := ls.Control(path); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode().Perm() != 0o666 || fi.Mode().Type() != os.ModeSocket {
		t.Fatalf("%v, %v", fi.Mode(), err)
	}
	if err := newListeners(t, nil).Control(path); err == nil || !strings.Contains(err.Error(), "somebody listens") {
		t.Errorf("a second daemon got the socket: %v", err)
	}
	ls.Close()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestControlSocketReplacesOnlyItsOwnStaleOne(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "control.sock")
	stale := func(path string) {
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		ln.SetUnlinkOnClose(false)
		ln.Close()
	}
	stale(path)
	if err := newListeners(t, nil).Control(path); err != nil {
		t.Errorf("a stale socket is in the way: %v", err)
	}

	other := filepath.Join(dir, "other.sock")
	stale(other)
	for name, put := range map[string]func(path string) error{
		"file":              func(path string) error { return os.WriteFile(path, []byte("precious"), 0o600) },
		"empty directory":   func(path string) error { return os.Mkdir(path, 0o700) },
		"link to a socket":  func(path string) error { return os.Symlink(other, path) },
		"link to nothing":   func(path string) error { return os.Symlink(filepath.Join(dir, "nothing"), path) },
		"fifo":              func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"socket of another": func(path string) error { stale(path); return os.Lchown(path, os.Geteuid()+1, -1) },
	} {
		path := filepath.Join(dir, name)
		if err := put(path); err != nil {
			if os.IsPermission(err) {
				continue // only root can make another's socket
			}
			t.Fatal(err)
		}
		before, _ := os.Lstat(path)
		if err := newListeners(t, nil).Control(path); err == nil {
			t.Errorf("%s: replaced", name)
		}
		if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s: gone", name)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "nothing")); err == nil {
		t.Error("a link was followed")
	}
	long := filepath.Join(dir, strings.Repeat("x", 108-len(dir)))
	if err := newListeners(t, nil).Control(long); err == nil || !strings.Contains(err.Error(), "shorter runtime directory") {
		t.Errorf("long path: %v", err)
	}
}

func TestListenersState(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	changed := make(chan struct{}, 10)
	ls := newListeners(t, func() { changed <- struct{}{} })
	ls.retryEvery = 10 * time.Millisecond
	path := filepath.Join(socketDir(t), "control.sock")
	if err := ls.Control(path); err != nil {
		t.Fatal(err)
	}
	address := taken.Addr().String()
	ls.TCP([]string{address, "127.0.0.1:0", address})

	got := ls.State()
	want := []view.Listener{
		{Address: path, Up: true},
		{Address: address, Error: "listen tcp " + address + ": bind: address already in use"},
		{Address: got[2].Address, Up: true},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}

	// Served as soon as it can be bound, by the server that is there already.
	h := &house{fakeSupervisor: newFake(), listeners: ls, tcp: address, socket: path}
	h.withLog()
	h.server = h.newServer(t, asUser(0), nil)
	h.server.Start(ls)
	taken.Close()
	<-changed
	if st := ls.State()[1]; !st.Up || st.Error != "" {
		t.Errorf("after the retry: %+v", st)
	}
	if got := request(t, h.over(t, "tcp"), "GET", "/-/healthy", ""); got.status != 200 {
		t.Errorf("got %d", got.status)
	}

	// What is not wanted any more goes, the rest stays the same sockets.
	files, _ := ls.Files()
	ls.TCP([]string{address})
	kept, _ := ls.Files()
	if d := cmp.Diff(files[:2], kept); d != "" {
		t.Error(d)
	}
	if _, err := net.Dial("tcp", got[2].Address); err == nil {
		// The server's duplicate is still open; it goes with the server.
		h.server.Shutdown(t.Context())
		if _, err := net.Dial("tcp", got[2].Address); err == nil {
			t.Error("an unwanted address is still listened on")
		}
	}
}

func TestReserve(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	ls := newListeners(t, nil)
	ls.TCP([]string{"127.0.0.1:0"})
	before, _ := ls.Files()
	if _, err := ls.Reserve([]string{"127.0.0.1:0", "127.0.0.2:0", taken.Addr().String()}); err == nil ||
		!strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("a taken address was reserved: %v", err)
	}
	if files, _ := ls.Files(); len(files) != 1 {
		t.Errorf("left after a failure: %v", files)
	}
	release, err := ls.Reserve([]string{"127.0.0.1:0", "127.0.0.2:0"})
	if err != nil {
		t.Fatal(err)
	}
	if files, _ := ls.Files(); len(files) != 2 || files[1].Name != "http:127.0.0.2:0" {
		t.Errorf("reserved: %v", files)
	}
	if st := ls.State(); len(st) != 1 {
		t.Errorf("a reserved address is shown: %v", st)
	}
	release()
	release()
	if files, _ := ls.Files(); !slices.Equal(files, before) {
		t.Errorf("after release: %v", files)
	}
}

// The next image finds the same sockets under their names.
func TestInherit(t *testing.T) {
	h := newHouse(t, asUser(0))
	if _, err := h.listeners.Reserve([]string{"127.0.0.2:0"}); err != nil {
		t.Fatal(err)
	}
	if err := h.server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	early, err := net.Dial("tcp", h.tcp) // between the two images
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	fmt.Fprint(early, "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n")

	files, err := h.listeners.Files()
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v", files, err)
	}
	next := newListeners(t, nil)
	for _, f := range files {
		fd, err := syscall.Dup(f.FD)
		if err != nil {
			t.Fatal(err)
		}
		if err := next.Inherit(f.Name, fd); err != nil {
			t.Fatal(err)
		}
	}
	if err := next.Control(h.socket); err != nil {
		t.Fatal(err)
	}
	next.TCP([]string{"127.0.0.1:0", "127.0.0.2:0"})
	st := next.State()
	if len(st) != 3 || st[0].Address != h.socket || st[1].Address != h.tcp || !st[2].Up {
		t.Errorf("inherited: %+v", st)
	}
	h.server = h.newServer(t, asUser(0), nil)
	h.server.Start(next)
	if got := newAnswers(early).read(t); got.status != 200 {
		t.Errorf("early: %d", got.status)
	}
	for _, network := range []string{"unix", "tcp"} {
		if got := request(t, h.over(t, network), "POST", "/v1/stop", ""); got.status != 202 {
			t.Errorf("%s: %d", network, got.status)
		}
	}
}

func TestInheritRefusesOthers(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	fd, _ := syscall.Dup(int(r.Fd()))
	r.Close()
	ls := newListeners(t, nil)
	if err := ls.Inherit("http:127.0.0.1:1", fd); err == nil {
		t.Error("a pipe is no listener")
	}
	if err := ls.Inherit("http:127.0.0.1:1", 1<<20); err == nil {
		t.Error("a closed descriptor is no listener")
	}
	if err := ls.Inherit("http:127.0.0.1:1", -1); err == nil {
		t.Error("-1 is no listener")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, _ := ln.(*net.TCPListener).File()
	defer f.Close()
	for _, name := range []string{"control:/run/x", "pidfd", ""} {
		fd, _ := syscall.Dup(int(f.Fd()))
		if err := ls.Inherit(name, fd); err == nil {
			t.Errorf("a TCP listener is not %q", name)
		}
	}
}

// An inherited control socket whose path is gone is of no use.
func TestInheritControlSocketWithoutPath(t *testing.T) {
	path := filepath.Join(socketDir(t), "control.sock")
	first := newListeners(t, nil)
	if err := first.Control(path); err != nil {
		t.Fatal(err)
	}
	files, _ := first.Files()
	fd, _ := syscall.Dup(files[0].FD)
	second := newListeners(t, nil)
	if err := second.Inherit(files[0].Name, fd); err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	if err := second.Control(path); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
