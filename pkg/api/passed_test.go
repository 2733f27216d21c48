package api

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
	"github.com/sentryd/sentryd/pkg/sockets"
)

// TestPassedSocketGivesNoRight: a child makes a client of the listening socket
// that it was given, and asks with it. The socket was made by root; what counts
// is whom it was given to. That root's own works shows that the trick does.
func TestPassedSocketGivesNoRight(t *testing.T) {
	testenv.Need(t, testenv.Root())
	const nobody = 65534
	for owner, want := range map[int]string{0: "200", nobody: "403"} {
		h := newHouse(t, kernelPeers)
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		free.Close()
		set := sockets.NewSet()
		t.Cleanup(set.Close)
		list := []sockets.Want{{Spec: &sockets.Spec{Network: sockets.TCP, Address: free.Addr().String(), UID: owner, GID: owner}}}
		var fd int
		set.Open(list, func(fds []int, _ bool, err error) { // at once: it is no unix socket
			if err != nil {
				t.Fatal(err)
			}
			fd = fds[0]
		})
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			t.Fatal(err)
		}
		passed := os.NewFile(uintptr(dup), "passed")
		exe, err := os.Open("/proc/self/exe") // its directory may be root's alone
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/fd/3", "-test.run=^TestHelperPassed$")
		cmd.ExtraFiles = []*os.File{exe, passed}
		cmd.Dir = "/"
		cmd.Env = []string{"API_TEST_PASSED=" + h.tcp}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		exe.Close()
		passed.Close()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		call := h.take()
		if !strings.HasPrefix(string(out), "status "+want+"\n") || (call != "") != (want == "200") {
			t.Errorf("over a socket of user %d: %s, supervisor got %q", owner, out, call)
		}
	}
}

func TestHelperPassed(t *testing.T) {
	to := os.Getenv("API_TEST_PASSED")
	if to == "" {
		return // not run by TestPassedSocketGivesNoRight
	}
	const fd = 4
	// It listens no more, and may connect (tcp(7)).
	if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(to)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	c, err := net.FileConn(os.NewFile(fd, "passed"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "POST /type/dummy HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\n\r\nscale=3")
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("status", r.StatusCode)
}
