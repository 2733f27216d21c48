package peer

import (
	"net"
	"os"
	"testing"
)

func TestTCPOwnUID(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", "127.3.2.1:0"} {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		cl, err := TCP(s.(*net.TCPConn))
		if err != nil {
			t.Fatal(err)
		}
		uid, err := cl.UID()
		if err != nil || uid != uint32(os.Getuid()) {
			t.Fatalf("UID() = %d, %v", uid, err)
		}
		c.Close()
		s.Close()
		ln.Close()
	}
}
