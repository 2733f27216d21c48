package peer

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
)

// loopback connections of every shape know their owner, at each request.
func TestTCP(t *testing.T) {
	for name, tc := range map[string]struct{ network, listen, dial string }{
		"IPv4":                 {"tcp4", "127.0.0.1:0", ""},
		"IPv4, other address":  {"tcp4", "127.3.2.1:0", ""},
		"IPv4 to a v6 socket":  {"tcp", "[::]:0", "127.0.0.1"},
		"IPv6":                 {"tcp6", "[::1]:0", ""},
		"IPv6, any address":    {"tcp", "[::]:0", "::1"},
		"IPv4, any address":    {"tcp4", "0.0.0.0:0", "127.0.0.1"},
		"mapped to IPv4":       {"tcp4", "127.0.0.1:0", "mapped"},
		"mapped to an any one": {"tcp", "[::]:0", "mapped"},
	} {
		t.Run(name, func(t *testing.T) {
			ln := listen(t, tc.network, tc.listen)
			to := netip.MustParseAddrPort(ln.Addr().String())
			switch tc.dial {
			case "":
			case "mapped":
				dialMapped(t, to.Port())
			default:
				to = netip.AddrPortFrom(netip.MustParseAddr(tc.dial), to.Port())
			}
			if tc.dial != "mapped" {
				c, err := net.Dial("tcp", to.String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
			}
			cl, err := TCP(accept(t, ln).(*net.TCPConn))
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if uid, err := cl.UID(); err != nil || uid != uint32(os.Getuid()) {
					t.Errorf("UID() = %d, %v; want %d", uid, err, os.Getuid())
				}
			}
		})
	}
}

// dialMapped connects an IPv6 socket to ::ffff:127.0.0.1, which Go's net never
// does.
func dialMapped(t *testing.T, port uint16) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs IPv6: %v", err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	to := &syscall.SockaddrInet6{Port: int(port), Addr: netip.MustParseAddr("::ffff:127.0.0.1").As16()}
	if err := syscall.Connect(fd, to); err != nil {
		t.Fatal(err)
	}
}

// A client that leaves as soon as it has sent is never taken for someone else,
// least of all for root, whose uid the kernel reports for closed sockets.
func TestClientLeaves(t *testing.T) {
	tries := 300
	if testing.Short() {
		tries = 30
	}
	self := uint32(os.Getuid())
	for _, uid := range []uint32{self, nobodyUID} {
		for _, how := range []string{"hold", "close", "shutdown", "reset"} {
			t.Run(map[bool]string{true: "self", false: "nobody"}[uid == self]+" "+how, func(t *testing.T) {
				ln := listen(t, "tcp", "127.0.0.1:0")
				clientAs(t, uid, nil, how, ln.Addr(), tries)
				var known int
				for range tries {
					if leaves(t, accept(t, ln).(*net.TCPConn), uid, how) {
						known++
					}
				}
				t.Logf("known after the request: %d of %d", known, tries)
				if how == "hold" && known != tries {
					t.Errorf("only %d of %d clients that stayed are known", known, tries)
				}
			})
		}
	}
}

// leaves serves one request, and reports whether the client could be known
// after it was read.
func leaves(t *testing.T, c *net.TCPConn, uid uint32, how string) (known bool) {
	t.Helper()
	defer c.Close()
	cl, err := TCP(c)
	if err != nil {
		checkRefusal(t, err)
		return false
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	got, err := cl.UID()
	switch {
	case err == nil && got != uid:
		t.Fatalf("the client of %d is taken for %d", uid, got)
	case err != nil:
		checkRefusal(t, err)
		if got != nobody {
			t.Fatalf("uid %d with error %v", got, err)
		}
	}
	if how == "hold" {
		return err == nil
	}
	// It will be gone, or half gone: from then on it must not be known.
	_, _ = io.Copy(io.Discard, c)
	if late, lateErr := cl.UID(); lateErr == nil {
		t.Fatalf("a client that left is taken for %d", late)
	} else {
		checkRefusal(t, lateErr)
	}
	return err == nil
}

func checkRefusal(t *testing.T, err error) {
	t.Helper()
	for _, why := range []error{ErrNoSocket, ErrNotEstablished, ErrReplaced} {
		if errors.Is(err, why) {
			return
		}
	}
	t.Fatalf("no reason of ours: %v", err)
}

// lonely is an address from which nobody else connects, so that a port of it
// can be bound again; one of 127.0.0.1 may be shared with connections to
// elsewhere.
var lonely = &net.TCPAddr{IP: net.IPv4(127, 77, 7, 7)}

// The other way to be taken for root: send, reset, and let root's connection
// take over the port. Before the accept, the client's socket is the wrong one
// from the start, and only our own end shows it.
func TestTakeoverBeforeAccept(t *testing.T) {
	ln := listen(t, "tcp", "127.0.0.1:0")
	first := dialFrom(t, ln, lonely)
	give(t, first, nobodyUID)
	if _, err := first.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	from := first.LocalAddr()
	reset(t, first)
	dialFrom(t, ln, from) // root's, of the same addresses

	accepted := accept(t, ln).(*net.TCPConn)
	if accepted.RemoteAddr().String() != from.String() {
		t.Fatalf("accepted %v, want the first connection, from %v", accepted.RemoteAddr(), from)
	}
	cl, err := TCP(accepted)
	if err == nil {
		uid, uidErr := cl.UID()
		t.Fatalf("the reset connection has a client: uid %d, %v", uid, uidErr)
	}
	if !errors.Is(err, ErrNotEstablished) {
		t.Error(err)
	}
	// What it sent can be read nevertheless (on 6.18 at least), which is why
	// this matters.
	n, err := accepted.Read(make([]byte, 1))
	t.Logf("read %d bytes of the reset connection, %v", n, err)
	// And root's own connection is not harmed.
	cl, err = TCP(accept(t, ln).(*net.TCPConn))
	if err != nil {
		t.Fatal(err)
	}
	if uid, err := cl.UID(); err != nil || uid != 0 {
		t.Errorf("UID() = %d, %v", uid, err)
	}
}

// The same after the accept.
func TestTakeoverAfterAccept(t *testing.T) {
	ln := listen(t, "tcp", "127.0.0.1:0")
	first, server := pair(t, ln, lonely)
	give(t, first, nobodyUID)
	cl, err := TCP(server)
	if err != nil {
		t.Fatal(err)
	}
	from := first.LocalAddr()
	reset(t, first)
	_, second := pair(t, ln, from)
	if uid, err := cl.UID(); !errors.Is(err, ErrNotEstablished) {
		t.Errorf("UID() = %d, %v", uid, err)
	}
	// Were our own end not looked at, the identity would tell.
	known, err := TCP(second)
	if err != nil {
		t.Fatal(err)
	}
	if known.id.inode == cl.id.inode || known.id.cookie == cl.id.cookie {
		t.Errorf("identities %+v and %+v of two sockets", cl.id, known.id)
	}
	known.id = cl.id
	if uid, err := known.UID(); !errors.Is(err, ErrReplaced) || uid != nobody {
		t.Errorf("UID() = %d, %v", uid, err)
	}
}

func reset(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if err := c.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// Whose the listener and our own end are makes no difference; the client's end
// alone counts, and it belongs to whom it was given.
func TestOwner(t *testing.T) {
	ln := listen(t, "tcp", "127.0.0.1:0")
	client, server := pair(t, ln, nil)
	cl, err := TCP(server)
	if err != nil {
		t.Fatal(err)
	}
	want := func(want uint32) {
		t.Helper()
		if uid, err := cl.UID(); err != nil || uid != want {
			t.Errorf("UID() = %d, %v; want %d", uid, err, want)
		}
	}
	give(t, server, 4711)
	give(t, ln.(*net.TCPListener), 4711)
	want(0)
	// A process that is handed root's socket sends with root's right, as the
	// kernel does not know who writes. Giving it away properly ends that.
	give(t, client, nobodyUID)
	want(nobodyUID)
}

// Only TCP over loopback is asked about.
func TestNotLoopback(t *testing.T) {
	check := func(what string, c syscall.Conn) {
		t.Helper()
		if cl, err := TCP(c); !errors.Is(err, ErrNotLoopback) || cl != nil {
			t.Errorf("%s: %v, %v", what, cl, err)
		}
	}
	udp, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	check("udp", udp.(*net.UDPConn))

	ln := listen(t, "unix", t.TempDir()+"/s")
	c, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	check("unix", accept(t, ln).(*net.UnixConn))

	self := selfConnected(t)
	check("a socket connected to itself", self)

	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		ipnet, ok := a.(*net.IPNet)
		if !ok || !ipnet.IP.IsGlobalUnicast() {
			continue
		}
		ln := listen(t, "tcp", net.JoinHostPort(ipnet.IP.String(), "0"))
		_, server := pair(t, ln, nil)
		check("the host's own address", server)
		_, server = pair(t, ln, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		check("to the host's own address from loopback", server)
		return
	}
}

// selfConnected returns a socket that is connected to its own address.
func selfConnected(t *testing.T) *net.TCPConn {
	t.Helper()
	ln := listen(t, "tcp", "127.0.0.1:0")
	addr := ln.Addr()
	ln.Close()
	c, err := (&net.Dialer{LocalAddr: addr}).Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func TestClosedByUs(t *testing.T) {
	ln := listen(t, "tcp", "127.0.0.1:0")
	_, server := pair(t, ln, nil)
	cl, err := TCP(server)
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	if uid, err := cl.UID(); err == nil || uid != nobody {
		t.Errorf("UID() = %d, %v", uid, err)
	}
	if _, err := TCP(server); err == nil {
		t.Error("TCP of a closed connection succeeds")
	}
}

func TestConcurrent(t *testing.T) {
	ln := listen(t, "tcp", "127.0.0.1:0")
	_, server := pair(t, ln, nil)
	cl, err := TCP(server)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if uid, err := cl.UID(); err != nil || uid != uint32(os.Getuid()) {
					t.Errorf("UID() = %d, %v", uid, err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkUID(b *testing.B) {
	ln := listen(b, "tcp", "127.0.0.1:0")
	_, server := pair(b, ln, nil)
	cl, err := TCP(server)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cl.UID(); err != nil {
			b.Fatal(err)
		}
	}
}
