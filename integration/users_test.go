package integration

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// nobody is a user with no right to anything, for tests that are root's.
func nobody(t *testing.T) *syscall.Credential {
	t.Helper()
	testenv.Need(t, testenv.Root(), testenv.User("nobody"))
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(uidErr, gidErr); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// openDir returns a directory that every user can pass through, unlike
// t.TempDir's, and in it the program under test.
func openDir(t *testing.T) (dir, bin string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(docsBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	binDir := filepath.Join(dir, "bin")
	if err := os.Mkdir(binDir, 0o755); err != nil {
		t.Fatal(err)
	}
	bin = filepath.Join(binDir, "sentryd")
	if err := os.WriteFile(bin, program, 0o755); err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	return home, bin
}

// runAs runs a program as a user, nil for the test's own, and returns its exit
// code and all that it printed.
func (d *daemon) runAs(who *syscall.Credential, args ...string) (int, string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = d.dir, d.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Fatalf("%q: %v\n%s", args, err, d)
	}
	return exitCodeOf(err), string(out)
}

// clientAs returns an HTTP client all of whose connections are that user's, to
// an address as GET /v1/state names it: a path, or HOST:PORT.
func clientAs(t *testing.T, who *syscall.Credential, address string) *http.Client {
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return dialAs(who, "", address)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// dialAs connects as a user would, nil for the test's own, and from a network
// namespace, named by its path in /proc, "" for the test's own. The kernel notes
// the rights of the thread that makes the socket and connects it.
func dialAs(who *syscall.Credential, namespace, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and nobody else
		// gets to run with what it was changed to.
		runtime.LockOSThread()
		if err := become(who, namespace); err != nil {
			done <- result{nil, err}
			return
		}
		conn, err := connect(address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// become changes what the present thread alone is. glibc's wrappers, and Go's
// of the syscall package, would change the whole process.
func become(who *syscall.Credential, namespace string) error {
	if namespace != "" {
		ns, err := os.Open(namespace)
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
	}
	if who == nil {
		return nil
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
		return os.NewSyscallError("setgroups", errno)
	}
	gid, uid := uintptr(who.Gid), uintptr(who.Uid)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return os.NewSyscallError("setresgid", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return os.NewSyscallError("setresuid", errno)
	}
	return nil
}

// connect is net.Dial on the present thread.
func connect(address string) (net.Conn, error) {
	family, sa := unix.AF_UNIX, unix.Sockaddr(&unix.SockaddrUnix{Name: address})
	if !strings.HasPrefix(address, "/") {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, err
		}
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), address)
	defer f.Close()
	if err := unix.Connect(fd, sa); err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	return net.FileConn(f)
}

// tcpAddress is where the daemon listens on TCP.
func (d *daemon) tcpAddress() string {
	d.t.Helper()
	for _, l := range d.state().Daemon.Listeners {
		if l.Up && !strings.HasPrefix(l.Address, "/") {
			return l.Address
		}
	}
	d.t.Fatalf("no TCP address\n%s", d)
	return ""
}

// A request is one of HTTP, for a client.
type request struct {
	method, path string
	header       string // "Name: value", lines of it
	host         string // if not the address
	form, json   string // body, of one of the two kinds
}

// send makes a request and returns the status and the body of the answer.
func (d *daemon) send(c *http.Client, r request) (int, string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, "http://127.0.0.1"+r.path, strings.NewReader(r.form+r.json))
	if err != nil {
		d.t.Fatal(err)
	}
	switch {
	case r.json != "":
		req.Header.Set("Content-Type", "application/json")
	case r.method == http.MethodPost && strings.HasPrefix(r.path, "/type/"), r.form != "":
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for line := range strings.Lines(r.header) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		req.Header.Set(name, strings.TrimSpace(value))
	}
	if r.host != "" {
		req.Host = r.host
	}
	resp, err := c.Do(req)
	if err != nil {
		d.t.Fatalf("%+v: %v\n%s", r, err, d)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatalf("%+v: %v\n%s", r, err, d)
	}
	return resp.StatusCode, string(body)
}
