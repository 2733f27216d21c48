package peer

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// With no connection of the addresses the kernel answers with a listener on
// the port, here our own, whose uid is not the client's.
func TestLookupFallsBackToListener(t *testing.T) {
	ln := listen(t, "tcp", "127.0.0.1:0")
	addr := netip.MustParseAddrPort(ln.Addr().String())
	peer := netip.MustParseAddrPort("127.0.0.1:1")
	if s, err := lookup(addr, peer); !errors.Is(err, ErrNoSocket) {
		t.Errorf("lookup of a connection that is not there: %+v, %v", s, err)
	}
}

// A closed socket has no inode, and its uid means nothing: it is root's on older
// kernels, and on all in TIME_WAIT, where an orphan soon goes.
func TestClosedSocketIsNobodys(t *testing.T) {
	ln := listen(t, "tcp", "127.0.0.1:0")
	client, _ := pair(t, ln, nil)
	give(t, client, nobodyUID)
	addr := netip.MustParseAddrPort(client.LocalAddr().String())
	to := netip.MustParseAddrPort(ln.Addr().String())
	s, err := lookup(addr, to)
	if err != nil || s.uid != nobodyUID || s.usable() != nil {
		t.Fatalf("open: %+v, %v", s, err)
	}
	client.Close()
	if s, err = lookup(addr, to); err != nil {
		t.Fatal(err)
	}
	t.Logf("closed: uid %d, %v, inode %d", s.uid, s.state, s.id.inode)
	if err := s.usable(); !errors.Is(err, ErrNotEstablished) {
		t.Errorf("usable: %v", err)
	}
	s.state = established // the inode alone must be reason enough
	if err := s.usable(); !errors.Is(err, ErrNotEstablished) {
		t.Errorf("usable: %v", err)
	}
}

// A reply about a connection from 127.0.0.1:37182 to port 8001, little-endian.
const (
	diagHeader = "58000000" + "1400" + "0000" + "00000000" + "00000000"
	diagBody   = "02010000913e1f417f0000010000000000000000000000007f000001000000000000000000000000" +
		"00000000" + "1900000000000000" + "00000000" + "00000000" + "00000000" + "feff0000" + "d2040000"
)

func fixture(t testing.TB) []byte {
	t.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("needs a little-endian machine: the fixture is one's")
	}
	b, err := hex.DecodeString(diagHeader + diagBody)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseReply(t *testing.T) {
	want := socket{
		addr:  netip.MustParseAddrPort("127.0.0.1:37182"),
		peer:  netip.MustParseAddrPort("127.0.0.1:8001"),
		state: established, uid: nobodyUID, id: identity{inode: 1234, cookie: 0x19},
	}
	if got, err := parseReply(fixture(t)); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	ne := binary.NativeEndian
	for name, spoil := range map[string]func([]byte) []byte{
		"empty":           func(b []byte) []byte { return nil },
		"header only":     func(b []byte) []byte { return b[:16] },
		"truncated":       func(b []byte) []byte { return b[:len(b)-1] },
		"length short":    func(b []byte) []byte { ne.PutUint32(b, 0x57); return b },
		"length zero":     func(b []byte) []byte { ne.PutUint32(b, 0); return b },
		"length long":     func(b []byte) []byte { ne.PutUint32(b, 0x59); return b },
		"other type":      func(b []byte) []byte { ne.PutUint16(b[4:], 3); return b },
		"other family":    func(b []byte) []byte { b[16] = unix.AF_UNIX; return b },
		"error, no errno": func(b []byte) []byte { ne.PutUint16(b[4:], unix.NLMSG_ERROR); ne.PutUint32(b, 16); return b },
		"error zero":      func(b []byte) []byte { ne.PutUint16(b[4:], unix.NLMSG_ERROR); ne.PutUint32(b[16:], 0); return b },
	} {
		if s, err := parseReply(spoil(fixture(t))); !errors.Is(err, errDiagReply) || s != (socket{}) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	b := fixture(t)
	ne.PutUint16(b[4:], unix.NLMSG_ERROR)
	ne.PutUint32(b[16:], ^uint32(unix.ENOENT)+1)
	if _, err := parseReply(b); !errors.Is(err, unix.ENOENT) {
		t.Errorf("error reply: %v", err)
	}
}

func TestTCPStateCode(t *testing.T) {
	for s, want := range map[tcpStateCode]string{0: "in state 0", 1: "ESTABLISHED", 10: "LISTEN", 12: "NEW_SYN_RECV", 13: "in state 13"} {
		if got := s.String(); got != want {
			t.Errorf("%d: %q, want %q", uint8(s), got, want)
		}
	}
}

func FuzzParseReply(f *testing.F) {
	b := fixture(f)
	f.Add(b)
	v6 := bytes.Clone(b)
	v6[16] = unix.AF_INET6
	f.Add(v6)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseReply(b)
		if err != nil {
			if s != (socket{}) {
				t.Fatalf("%+v with error %v", s, err)
			}
			return
		}
		if s.usable() == nil && (s.state != established || s.id.inode == 0) {
			t.Fatalf("usable: %+v", s)
		}
		if s.addr.Addr().Is4In6() || s.peer.Addr().Is4In6() {
			t.Fatalf("mapped address in %+v", s)
		}
	})
}

// Descriptors: a lookup leaves none behind, whether it finds something or not.
func TestLookupLeaksNothing(t *testing.T) {
	ln := listen(t, "tcp", "127.0.0.1:0")
	_, server := pair(t, ln, nil)
	cl, err := TCP(server)
	if err != nil {
		t.Fatal(err)
	}
	before := openFiles(t)
	for range 50 {
		if _, err := cl.UID(); err != nil {
			t.Fatal(err)
		}
		_, _ = lookup(netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2"))
		_, _ = TCP(&net.TCPConn{})
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors, before %d", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
