package peer

import (
	"io"
	"net"
	"os"
	"slices"
	"testing"
)

func TestUnix(t *testing.T) {
	many := make([]uint32, 100) // more than fit at the first try
	for i := range many {
		many[i] = uint32(1000 + i)
	}
	for name, tc := range map[string]struct {
		uid    uint32
		groups []uint32
	}{
		"self":        {uint32(os.Getuid()), nil},
		"nobody":      {nobodyUID, []uint32{}},
		"one group":   {nobodyUID, []uint32{4711}},
		"many groups": {nobodyUID, many},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir() + "/s"
			ln := listen(t, "unix", path)
			// The directories above are root's alone.
			for _, dir := range []string{path, path[:len(path)-len("/s")], path[:len(path)-len("/001/s")]} {
				if err := os.Chmod(dir, 0o777); err != nil {
					t.Fatal(err)
				}
			}
			clientAs(t, tc.uid, tc.groups, "hold", ln.Addr(), 1)
			c := accept(t, ln)
			defer c.Close()
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			cred, err := Unix(c.(*net.UnixConn))
			if err != nil {
				t.Fatal(err)
			}
			gid := uint32(os.Getgid())
			if tc.uid != uint32(os.Getuid()) {
				gid = tc.uid
			}
			if cred.UID != tc.uid || cred.GID != gid || cred.PID <= 0 || cred.PID == os.Getpid() {
				t.Errorf("%+v", cred)
			}
			if tc.groups != nil && !slices.Equal(cred.Groups, tc.groups) {
				t.Errorf("groups %v, want %v", cred.Groups, tc.groups)
			}
		})
	}
}

// The answer is about the time of the connect: it survives the client.
func TestUnixClientLeft(t *testing.T) {
	ln := listen(t, "unix", t.TempDir()+"/s")
	c, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	cred, err := Unix(accept(t, ln).(*net.UnixConn))
	if err != nil || cred.UID != uint32(os.Getuid()) || cred.PID != os.Getpid() {
		t.Errorf("%+v, %v", cred, err)
	}
}

func TestUnixRefuses(t *testing.T) {
	ln := listen(t, "tcp", "127.0.0.1:0")
	_, server := pair(t, ln, nil)
	if cred, err := Unix(server); err == nil {
		t.Errorf("a TCP connection has credentials %+v", cred)
	}
	udp, err := net.ListenPacket("unixgram", t.TempDir()+"/d")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if cred, err := Unix(udp.(*net.UnixConn)); err == nil {
		t.Errorf("an unconnected socket has credentials %+v", cred)
	}
	udp.Close()
	if _, err := Unix(udp.(*net.UnixConn)); err == nil {
		t.Error("a closed socket has credentials")
	}
}
