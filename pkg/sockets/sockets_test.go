package sockets

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

const nobody = 65534

// mine is a spec of this process' own user.
func mine(network, address string) *Spec {
	return &Spec{Network: network, Address: address, Mode: 0o600, UID: os.Geteuid(), GID: os.Getegid()}
}

// newSet returns a set that ends with the test, which leaves no descriptor.
func newSet(t *testing.T) *Set {
	t.Helper()
	s := NewSet()
	t.Cleanup(func() {
		s.Close()
		if len(s.open) != 0 {
			t.Errorf("left open: %v", s.open)
		}
	})
	return s
}

// mustOpen opens one as if nobody had it.
func mustOpen(t *testing.T, s *Set, spec *Spec, index int) int {
	t.Helper()
	fd, err := tryOpen(s, spec, index)
	if err := cmp.Or(err, s.Block(spec, index)); err != nil {
		t.Fatal(err)
	}
	return fd
}

// tryOpen opens one socket, and waits for that.
func tryOpen(s *Set, spec *Spec, index int) (fd int, err error) {
	done := false
	s.Open([]Want{{spec, index}}, func(fds []int, _ bool, e error) {
		if done, err = true, e; err == nil {
			fd = fds[0]
		}
	})
	for !done {
		<-s.Ready()
		s.Take()
	}
	return fd, err
}

// settle waits until every file system has answered.
func settle(s *Set) {
	for len(s.steps) > 0 {
		<-s.Ready()
		s.Take()
	}
}

func has(s *Set, spec *Spec, index int) bool {
	settle(s)
	return s.open[spec.key(index)] != nil
}

// freePort returns a loopback address that nobody has.
func freePort(t *testing.T, network, host string) string {
	t.Helper()
	return freePorts(t, network, host, 1)[0]
}

// freePorts returns several, which differ.
func freePorts(t *testing.T, network, host string, n int) (list []string) {
	t.Helper()
	for range n {
		at := net.JoinHostPort(host, "0")
		if network == UDP {
			c, err := net.ListenPacket(network, at)
			if err != nil {
				t.Skipf("needs IPv6: %v", err)
			}
			defer c.Close()
			list = append(list, c.LocalAddr().String())
			continue
		}
		ln, err := net.Listen(network, at)
		if err != nil {
			t.Skipf("needs IPv6: %v", err)
		}
		defer ln.Close()
		list = append(list, ln.Addr().String())
	}
	return list
}

// listener is what a program makes of a descriptor that it was passed.
func listener(t *testing.T, fd int) net.Listener {
	t.Helper()
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(dup), "passed")
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// reach connects to an address, and has the listener accept it.
func reach(t *testing.T, ln net.Listener, network, address string) {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
}

func wantErrno(t *testing.T, err error, op string, want syscall.Errno, address string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Op != op || !errors.Is(err, want) || e.Address != address {
		t.Errorf("error %v, want %s %s: %v", err, op, address, want)
	}
}

func TestStreamsAreReached(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for _, test := range []struct{ network, address, from string }{
		{TCP, freePort(t, TCP, "127.0.0.1"), ""},
		{TCP, freePort(t, TCP, "::1"), ""},
		{TCP, strings.Replace(freePort(t, TCP, "127.0.0.1"), "127.0.0.1", "", 1), ""},
		{Unix, path, ""},
	} {
		t.Run(address(test.network, test.address), func(t *testing.T) {
			s := newSet(t)
			spec := mine(test.network, test.address)
			fd := mustOpen(t, s, spec, 0)
			if again := mustOpen(t, s, spec, 7); again != fd {
				t.Errorf("asked again for descriptor %d: %d", fd, again)
			}
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("not close-on-exec (%v)", err)
			}
			if status, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || status&unix.O_NONBLOCK != 0 {
				t.Errorf("does not block (%v)", err)
			}
			ln := listener(t, fd)
			reach(t, ln, test.network, test.address)
			ln.Close()
			// A client that comes while there is no program waits.
			c, err := net.Dial(test.network, test.address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			reach(t, listener(t, fd), test.network, test.address)
			s.Drop(spec, 0)
			if has(s, spec, 0) {
				t.Error("dropped, and still there")
			}
		})
	}
}

// TestBothFamilies: [::] takes clients of IPv4, too, whatever the system's
// default is, and 0.0.0.0 leaves those of IPv6 alone.
func TestBothFamilies(t *testing.T) {
	_, port, _ := net.SplitHostPort(freePort(t, TCP, "::1"))
	for _, host := range []string{"", "[::]"} {
		s := newSet(t)
		ln := listener(t, mustOpen(t, s, mine(TCP, host+":"+port), 0))
		reach(t, ln, TCP, "127.0.0.1:"+port)
		reach(t, ln, TCP, "[::1]:"+port)
		ln.Close()
		s.Close()
	}
	s := newSet(t)
	reach(t, listener(t, mustOpen(t, s, mine(TCP, "0.0.0.0:"+port), 0)), TCP, "127.0.0.1:"+port)
	if c, err := net.Dial(TCP, "[::1]:"+port); err == nil {
		c.Close()
		t.Error("0.0.0.0 takes clients of IPv6")
	}
}

func TestDatagramsAreReceived(t *testing.T) {
	s := newSet(t)
	address := freePort(t, UDP, "127.0.0.1")
	fd := mustOpen(t, s, mine(UDP, address), 0)
	c, err := net.Dial(UDP, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "hello")
	buf := make([]byte, 16)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil || string(buf[:n]) != "hello" {
		t.Errorf("received %q, %v", buf[:n], err)
	}
	// Nobody can take datagrams away by binding to the same address.
	_, err = tryOpen(newSet(t), mine(UDP, address), 0)
	wantErrno(t, err, "bind", unix.EADDRINUSE, "udp://"+address)
}

func TestAddressesThatCannotBeBound(t *testing.T) {
	dir := t.TempDir()
	taken, err := net.Listen(TCP, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(dir, "file")
	link := filepath.Join(dir, "link")
	served := filepath.Join(dir, "served")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), link); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen(Unix, served)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	before, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		network, address string
		want             syscall.Errno
	}{
		{TCP, taken.Addr().String(), unix.EADDRINUSE},
		{TCP, "192.0.2.1:80", unix.EADDRNOTAVAIL},
		{Unix, file, unix.EADDRINUSE},
		{Unix, link, unix.EADDRINUSE},
		{Unix, served, unix.EADDRINUSE},
		{Unix, filepath.Join(dir, "none", "s"), unix.ENOENT},
		{Unix, filepath.Join(file, "s"), unix.ENOTDIR},
	} {
		s := newSet(t)
		_, err := tryOpen(s, mine(test.network, test.address), 0)
		wantErrno(t, err, "bind", test.want, address(test.network, test.address))
		if len(s.Records()) != 0 {
			t.Errorf("%s is in the set", test.address)
		}
	}
	if after, err := os.ReadDir("/proc/self/fd"); err != nil || len(after) != len(before) {
		t.Errorf("descriptors: %d before, %d after (%v)", len(before), len(after), err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file is %q, %v", text, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "elsewhere")); err == nil {
		t.Error("a symbolic link was followed")
	}
	reach(t, other, Unix, served)
}

func TestOnePerIndexWithReusePort(t *testing.T) {
	s := newSet(t)
	spec := mine(TCP, freePort(t, TCP, "127.0.0.1"))
	spec.ReusePort = true
	if os.Geteuid() == 0 {
		spec.UID, spec.GID = nobody, nobody // the kernel compares the sockets' users
	}
	a, b := mustOpen(t, s, spec, 0), mustOpen(t, s, spec, 1)
	if a == b || mustOpen(t, s, spec, 0) != a {
		t.Errorf("descriptors %d and %d", a, b)
	}
	s.Drop(spec, 1)
	if !has(s, spec, 0) || has(s, spec, 1) {
		t.Error("dropping the one of index 1 did something else")
	}
	reach(t, listener(t, a), TCP, spec.Address)
	s.Retain([]*Spec{spec})
	if !has(s, spec, 0) {
		t.Error("what was to be retained is gone")
	}
}

// TestBlocksAgain: O_NONBLOCK that a program has set is cleared for the next
// one, but not under those that have the socket still.
func TestBlocksAgain(t *testing.T) {
	s := newSet(t)
	spec := mine(TCP, freePort(t, TCP, "127.0.0.1"))
	fd := mustOpen(t, s, spec, 0)
	for _, alone := range []bool{false, true} {
		if err := unix.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
		_, err := tryOpen(s, spec, 0)
		if alone {
			err = cmp.Or(err, s.Block(spec, 0))
		}
		if err != nil {
			t.Fatal(err)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || (flags&unix.O_NONBLOCK == 0) != alone {
			t.Errorf("alone %v: flags %#x, %v", alone, flags, err)
		}
	}
}

// TestShutDownByAProgram: shutdown(2) ends listening for everybody who has the
// socket. Asked for again it listens.
func TestShutDownByAProgram(t *testing.T) {
	s := newSet(t)
	spec := mine(TCP, freePort(t, TCP, "127.0.0.1"))
	fd := mustOpen(t, s, spec, 0)
	if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial(TCP, spec.Address); err == nil {
		c.Close()
		t.Fatal("shut down, and still listening: the test is void")
	}
	reach(t, listener(t, mustOpen(t, s, spec, 0)), TCP, spec.Address)

	// Turned into a client it is beyond that, and replaced.
	other, err := net.Listen(TCP, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	fd = mustOpen(t, s, spec, 0)
	if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: other.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if len(s.Records()) != 0 {
		t.Error("a socket that is no listener is handed over as one")
	}
	again := mustOpen(t, s, spec, 0)
	if again != fd {
		t.Errorf("descriptor %d in the place of %d, which may be about to be passed on", again, fd)
	}
	reach(t, listener(t, again), TCP, spec.Address)
}

// TestHandOver: records and descriptors make the same set elsewhere.
func TestHandOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	free := freePorts(t, TCP, "127.0.0.1", 2)
	shared, own := mine(TCP, free[0]), mine(TCP, free[1])
	own.ReusePort = true
	specs := []*Spec{shared, own, mine(UDP, freePort(t, UDP, "127.0.0.1")), mine(Unix, path)}
	s := newSet(t)
	for _, spec := range specs {
		mustOpen(t, s, spec, 0)
	}
	mustOpen(t, s, own, 1)
	records := s.Records()
	if len(records) != 5 {
		t.Fatalf("%d records: %v", len(records), records)
	}
	next := newSet(t)
	names := make(map[string]bool)
	for _, r := range records {
		names[r.String()] = true
		r.FD = duplicate(t, r.FD)
		if err := next.Inherit(r); err != nil {
			t.Error(err)
		}
		r.Cookie++
		r.FD = duplicate(t, r.FD)
		if err := newSet(t).Inherit(r); err == nil {
			t.Errorf("%s: a stranger was taken", r)
		}
		if _, err := unix.FcntlInt(uintptr(r.FD), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("%s: the stranger is not closed (%v)", r, err)
		}
		r.Cookie--
		r.Address += "0"
		r.FD = duplicate(t, s.open[records[0].Key].fd)
		if err := newSet(t).Inherit(r); err == nil {
			t.Errorf("%s: a socket of another address was taken", r)
		}
	}
	if len(names) != 5 {
		t.Errorf("the names are not unique: %v", names)
	}
	for key, it := range s.open { // as an image that ends by execve
		unix.Close(it.fd)
		delete(s.open, key)
	}
	fd := mustOpen(t, next, specs[3], 0)
	reach(t, listener(t, fd), Unix, path)
	next.Retain(specs[:1])
	if !has(next, shared, 0) || has(next, own, 0) || has(next, own, 1) || has(next, specs[2], 0) || has(next, specs[3], 0) {
		t.Errorf("after retaining one: %v", next.Records())
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of the unix socket is left (%v)", err)
	}
}

func duplicate(t *testing.T, fd int) int {
	t.Helper()
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	return dup
}

// TestReclaim takes sockets back from a process that was passed them.
func TestReclaim(t *testing.T) {
	s := newSet(t)
	free := freePorts(t, TCP, "127.0.0.1", 2)
	spec, sent := mine(TCP, free[0]), mine(TCP, free[1])
	fd := mustOpen(t, s, spec, 0)
	mustOpen(t, s, sent, 0)
	var pidfd int
	cmd := exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(duplicate(t, fd)), "passed")}
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &pidfd}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles[0].Close()
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, stderr.String())
		}
		unix.Close(pidfd)
	})
	records := s.Records()
	if records[0].Address != spec.Address {
		records[0], records[1] = records[1], records[0]
	}
	unix.Close(fd) // as if the daemon had died
	delete(s.open, records[0].Key)
	got, err := Reclaim(cmd.Process.Pid, pidfd, &records[0])
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		t.Skipf("needs pidfd_getfd: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	records[0].FD = got
	if err := s.Inherit(records[0]); err != nil {
		t.Fatal(err)
	}
	reach(t, listener(t, mustOpen(t, s, spec, 0)), TCP, spec.Address)
	if got, err := Reclaim(cmd.Process.Pid, pidfd, &records[1]); err == nil {
		t.Errorf("descriptor %d of a socket that the process does not have", got)
	}
}

// TestOwner: what the kernel says of a socket is its user, not its maker.
func TestOwner(t *testing.T) {
	testenv.Need(t, testenv.Root())
	s := newSet(t)
	path := filepath.Join(t.TempDir(), "s")
	for _, spec := range []*Spec{mine(TCP, freePort(t, TCP, "127.0.0.1")), mine(UDP, freePort(t, UDP, "127.0.0.1")), mine(Unix, path)} {
		for _, id := range []int{nobody, 0, 1} { // at first, and changed later
			spec.UID, spec.GID = id, id
			var st unix.Stat_t
			if err := unix.Fstat(mustOpen(t, s, spec, 0), &st); err != nil || int(st.Uid) != id || int(st.Gid) != id {
				t.Errorf("%s: owner %d:%d, want %d (%v)", spec, st.Uid, st.Gid, id, err)
			}
		}
	}
}
