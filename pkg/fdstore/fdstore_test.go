package fdstore

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// manager is the other end of the notify socket.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{t: t, path: filepath.Join(t.TempDir(), "notify")}
	var err error
	m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.conn.Close() })
	return m
}

// next returns the next message, and the name of the descriptor that came with it.
func (m *manager) next() string {
	m.t.Helper()
	m.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf, oob := make([]byte, 1<<12), make([]byte, 1<<8)
	n, k, _, _, err := m.conn.ReadMsgUnix(buf, oob)
	if err != nil {
		m.t.Fatal(err)
	}
	text := strings.ReplaceAll(string(buf[:n]), "\n", " ")
	control, err := unix.ParseSocketControlMessage(oob[:k])
	if err != nil || len(control) == 0 {
		return text
	}
	fds, err := unix.ParseUnixRights(&control[0])
	if err != nil || len(fds) != 1 {
		m.t.Fatal(fds, err)
	}
	defer unix.Close(fds[0])
	return text + " with " + NameOf(fds[0])
}

func (m *manager) want(texts ...string) {
	m.t.Helper()
	for _, want := range texts {
		if got := m.next(); got != want {
			m.t.Fatalf("%q, want %q", got, want)
		}
	}
}

func (m *manager) store(o Options) *Store {
	m.t.Helper()
	o.Socket = m.path
	if o.Failed == nil {
		o.Failed = func(err error) { m.t.Error(err) }
	}
	s, err := New(o)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(s.Close)
	return s
}

// objects returns a descriptor of each kind, and one of none.
func objects(t *testing.T) (pidfd, fifo, socket, other int) {
	t.Helper()
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if socket, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pidfd); unix.Close(p[0]); unix.Close(p[1]); unix.Close(socket); f.Close() })
	return pidfd, p[0], socket, int(f.Fd())
}

func TestKeep(t *testing.T) {
	m := newManager(t)
	pidfd, fifo, socket, other := objects(t)
	if NameOf(pidfd) == "" {
		t.Skip("needs the pidfd to tell of the reap: pidfs, Linux 6.9")
	}
	before := openFDs(t)
	s := m.store(Options{Max: 10})
	for _, fd := range []int{pidfd, fifo, socket} {
		name := NameOf(fd)
		if kind, number, ok := parse(name); !ok || kind.name(number) != name || len(name) > 15 {
			t.Errorf("%q: %v %d", name, kind, number)
		}
		for range 2 { // the second time it is kept already
			if got := s.Keep(fd); got != name {
				t.Errorf("%q, want %q", got, name)
			}
		}
		m.want("FDSTORE=1 FDNAME=" + name + " FDPOLL=0 with " + name)
	}
	if name := s.Keep(other); name != "" {
		t.Errorf("kept as %q", name)
	}
	names := s.Names()
	slices.Sort(names)
	if d := cmp.Diff([]string{NameOf(fifo), NameOf(pidfd), NameOf(socket)}, names); d != "" {
		t.Error(d)
	}
	s.Forget(NameOf(fifo))
	s.Forget(NameOf(fifo))
	s.Notify("READY=1")
	m.want("FDSTOREREMOVE=1 FDNAME="+NameOf(fifo), "READY=1")
	// The next image, or the next daemon, goes on with the names.
	s.Close()
	next := m.store(Options{Max: 10, Kept: append(names, "p.!", "connection", "")})
	next.Keep(pidfd)
	next.Sweep()
	swept := []string{m.next(), m.next()}
	slices.Sort(swept)
	if d := cmp.Diff([]string{"FDSTOREREMOVE=1 FDNAME=" + NameOf(fifo), "FDSTOREREMOVE=1 FDNAME=" + NameOf(socket)}, swept); d != "" {
		t.Error(d)
	}
	next.Close()
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestFull: what has no room is said once, and room comes back.
func TestFull(t *testing.T) {
	m := newManager(t)
	_, fifo, socket, _ := objects(t)
	failed := make(chan error, 10)
	s := m.store(Options{Max: 1, Failed: func(err error) { failed <- err }})
	s.Keep(fifo)
	s.Keep(socket)
	s.Keep(socket)
	if err := <-failed; !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	m.want("FDSTORE=1 FDNAME=" + NameOf(fifo) + " FDPOLL=0 with " + NameOf(fifo))
	s.Forget(NameOf(fifo))
	s.Keep(socket)
	m.want("FDSTOREREMOVE=1 FDNAME="+NameOf(fifo), "FDSTORE=1 FDNAME="+NameOf(socket)+" FDPOLL=0 with "+NameOf(socket))
	if len(failed) > 0 {
		t.Error(<-failed)
	}
	nothing := m.store(Options{})
	nothing.Keep(fifo)
	nothing.Notify("READY=1")
	m.want("READY=1")
}

// TestRefused: a manager that has gone holds nobody up, and that is said once.
func TestRefused(t *testing.T) {
	m := newManager(t)
	_, fifo, socket, _ := objects(t)
	failed := make(chan error, 10)
	s := m.store(Options{Max: 10, Failed: func(err error) { failed <- err }})
	m.conn.Close()
	s.Keep(fifo)
	if err := <-failed; !errors.Is(err, unix.ECONNREFUSED) {
		t.Error(err)
	}
	s.Keep(socket)
	s.Close()
	if len(failed) > 0 {
		t.Error(<-failed)
	}
	if names := s.Names(); len(names) > 0 {
		t.Errorf("kept: %v", names)
	}
	if _, err := New(Options{Socket: m.path + ".none"}); err == nil {
		t.Error("a socket that is not there")
	}
}

// TestAllNamesFit: execve takes one variable with all the names.
func TestAllNamesFit(t *testing.T) {
	longest := Pidfd.name(1<<64 - 1)
	if n := len("LISTEN_FDNAMES=") + MaxKept*(len(longest)+1); n > 128<<10 {
		t.Errorf("%d bytes", n)
	}
	if strings.ContainsAny(longest, ": ") || len(longest) > 255 {
		t.Errorf("%q", longest)
	}
}

// TestInheritOthers: variables that are for another process are not taken for ours.
func TestInheritOthers(t *testing.T) {
	t.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()+1))
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("LISTEN_FDNAMES", "f.1")
	if kept := Inherit(); kept != nil {
		t.Errorf("%v", kept)
	}
	if _, there := os.LookupEnv("LISTEN_FDS"); there {
		t.Error("the next process would be told")
	}
}
