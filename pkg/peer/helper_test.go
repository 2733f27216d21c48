package peer

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
)

const nobodyUID = 65534

// TestMain: the test binary is also the client that some tests run as another
// user. PEER_TEST is how it behaves, its arguments network, address and count.
func TestMain(m *testing.M) {
	if how := os.Getenv("PEER_TEST"); how != "" {
		if err := client(how, os.Args[1], os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// client connects again and again, sends a byte each time, and leaves as told.
func client(how, network, addr, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	for range n {
		c, err := net.Dial(network, addr)
		if err != nil {
			return err
		}
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		switch how {
		case "hold": // until the server is done
			_, _ = io.Copy(io.Discard, c)
		case "shutdown":
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				return err
			}
			_, _ = io.Copy(io.Discard, c)
		case "reset":
			if err := c.(*net.TCPConn).SetLinger(0); err != nil {
				return err
			}
		}
		c.Close()
	}
	return nil
}

// clientAs starts the client as the given user and group, with further groups.
func clientAs(t *testing.T, uid uint32, groups []uint32, how string, to net.Addr, n int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", to.Network(), to.String(), strconv.Itoa(n))
	cmd.Env = append(os.Environ(), "PEER_TEST="+how, "GORACE=atexit_sleep_ms=0")
	stderr := new(bytes.Buffer)
	cmd.Stderr = stderr
	if uid != uint32(os.Getuid()) || groups != nil {
		if os.Getuid() != 0 {
			t.Skip("needs root: a client of another user")
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: groups}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Wait(); err != nil {
			t.Errorf("client: %v: %s", err, stderr)
		}
	})
}

// listen returns a listener on the address that ends with the test.
func listen(t testing.TB, network, addr string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		if network == "tcp6" || addr[0] == '[' {
			t.Skipf("needs IPv6: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func accept(t testing.TB, ln net.Listener) net.Conn {
	t.Helper()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// pair returns both ends of a new connection to ln, from the given address
// if there is one.
func pair(t testing.TB, ln net.Listener, from net.Addr) (client, server *net.TCPConn) {
	t.Helper()
	c := dialFrom(t, ln, from)
	return c, accept(t, ln).(*net.TCPConn)
}

func dialFrom(t testing.TB, ln net.Listener, from net.Addr) *net.TCPConn {
	t.Helper()
	c, err := (&net.Dialer{LocalAddr: from}).Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// give makes the socket another user's, as fchown(2) does since Linux 4.10.
func give(t testing.TB, c syscall.Conn, uid int) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: gives a socket away")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var chownErr error
	if err := raw.Control(func(fd uintptr) { chownErr = syscall.Fchown(int(fd), uid, uid) }); err != nil {
		t.Fatal(err)
	}
	if chownErr != nil {
		t.Fatal(chownErr)
	}
}
