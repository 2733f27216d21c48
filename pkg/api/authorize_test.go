package api

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sentryd/sentryd/internal/testenv"
	"github.com/sentryd/sentryd/pkg/peer"
)

// restrictedRequests are all that need a right.
var restrictedRequests = []struct{ method, path, body, header string }{
	{"POST", "/type/dummy", "scale=3", form},
	{"POST", "/v1/entries/dummy/scale", `{"count": 3}`, jsonHdr},
	{"POST", "/v1/entries/dummy/scale", `count=3`, form},
	{"POST", "/v1/entries/dummy/start", ``, jsonHdr},
	{"POST", "/v1/entries/dummy/stop", ``, jsonHdr},
	{"POST", "/v1/entries/dummy/restart", ``, jsonHdr},
	{"POST", "/v1/entries/dummy/signal", `{"signal": "HUP"}`, jsonHdr},
	{"POST", "/v1/reload", ``, jsonHdr},
	{"GET", "/v1/diff", ``, jsonHdr},
	{"HEAD", "/v1/diff", ``, jsonHdr},
	{"POST", "/v1/stop", ``, jsonHdr},
	{"POST", "/v1/stop?keep", ``, jsonHdr},
	{"POST", "/-/reload", ``, jsonHdr},
}

var openPaths = []string{"/types", "/v1/state", "/v1/entries", "/v1/entries/dummy", "/metrics", "/-/healthy", "/-/ready"}

func TestWhoMay(t *testing.T) {
	daemon := uint32(os.Geteuid())
	const stranger, deploy, admins = 4000000001, 4000000002, 4000000003
	permit := NewPermit([]uint32{deploy}, []uint32{admins})
	unknown := errors.New("no such client socket")
	noPeer := peers{
		unix: func(syscall.Conn) (peer.Cred, error) { return peer.Cred{}, unknown },
		tcp:  func(syscall.Conn) (owner, error) { return nil, unknown },
	}
	cred := func(c peer.Cred) peers {
		return peers{unix: func(syscall.Conn) (peer.Cred, error) { return c, nil }, tcp: noPeer.tcp}
	}
	ownerIs := func(o fakeOwner) peers {
		return peers{unix: noPeer.unix, tcp: func(syscall.Conn) (owner, error) { return o, nil }}
	}
	for _, tt := range []struct {
		name    string
		network string
		peers   peers
		header  string
		may     bool
	}{
		{"root on the socket", "unix", asUser(0), "", true},
		{"daemon's user on the socket", "unix", asUser(daemon), "", true},
		{"named user on the socket", "unix", asUser(deploy), "", true},
		{"stranger on the socket", "unix", asUser(stranger), "", false},
		{"named group, primary", "unix", cred(peer.Cred{UID: stranger, GID: admins}), "", true},
		{"named group, supplementary", "unix", cred(peer.Cred{UID: stranger, GID: stranger, Groups: []uint32{5, admins}}), "", true},
		{"other groups", "unix", cred(peer.Cred{UID: stranger, GID: deploy, Groups: []uint32{0, deploy, daemon}}), "", false},
		{"unknown on the socket", "unix", noPeer, "", false},
		{"root over TCP", "tcp", asUser(0), "", true},
		{"daemon's user over TCP", "tcp", asUser(daemon), "", true},
		{"named user over TCP", "tcp", asUser(deploy), "", true},
		{"stranger over TCP", "tcp", asUser(stranger), "", false},
		{"a group's number is no user", "tcp", asUser(admins), "", false},
		{"unknown at accept", "tcp", noPeer, "", false},
		{"gone after the request", "tcp", ownerIs(fakeOwner{err: peer.ErrNotEstablished}), "", false},
		{"replaced after the request", "tcp", ownerIs(fakeOwner{uid: 0, err: peer.ErrReplaced}), "", false},
		{"root through a proxy", "tcp", asUser(0), "Forwarded: for=192.0.2.1", false},
		{"root through a proxy", "tcp", asUser(0), "Forwarded:", false},
		{"root through a proxy", "tcp", asUser(0), "X-Forwarded-For: 127.0.0.1", false},
		{"root through a proxy", "tcp", asUser(0), "x-forwarded-anything: x", false},
		{"root through a proxy", "tcp", asUser(0), "X-Real-IP: 127.0.0.1", false},
		{"root through a proxy", "tcp", asUser(0), "Via: 1.1 x", false},
	} {
		h := newHouseFor(t, tt.peers, permit)
		for _, req := range restrictedRequests {
			headers := []string{req.header}
			if tt.header != "" {
				headers = append(headers, tt.header)
			}
			got := request(t, h.over(t, tt.network), req.method, req.path, req.body, headers...)
			call := h.take()
			if tt.may && (got.status/100 != 2 || call == "") {
				t.Errorf("%s: %s %s: %d %s, supervisor got %q", tt.name, req.method, req.path, got.status, got.body, call)
			}
			if !tt.may && (got.status != 403 || call != "") {
				t.Errorf("%s %q: %s %s: %d, supervisor got %q", tt.name, tt.header, req.method, req.path, got.status, call)
			}
		}
		for _, path := range openPaths {
			if got := request(t, h.over(t, tt.network), "GET", path, ""); got.status != 200 {
				t.Errorf("%s: GET %s: %d %s", tt.name, path, got.status, got.body)
			}
		}
	}
}

// The owner of the client's socket is asked for when the whole request is
// there, not before, and for each request of a connection.
func TestOwnerIsAskedAfterTheBody(t *testing.T) {
	asked := make(chan struct{}, 10)
	h := newHouse(t, peers{
		unix: kernelPeers.unix,
		tcp: func(syscall.Conn) (owner, error) {
			return fakeOwner{uid: 4000000001, ask: func() { asked <- struct{}{} }}, nil
		},
	})
	c, err := net.Dial("tcp", h.tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answers := newAnswers(c)
	for range 2 {
		fmt.Fprintf(c, "POST /type/dummy HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\nExpect: 100-continue\r\n"+
			"Content-Type: application/x-www-form-urlencoded\r\n\r\n")
		if line := answers.line(t); line != "HTTP/1.1 100 Continue" {
			t.Fatalf("got %q", line)
		}
		if answers.line(t) != "" {
			t.Fatal("no end of the 100 answer")
		}
		// The server now waits for the body.
		if len(asked) != 0 {
			t.Fatal("asked before the body was there")
		}
		fmt.Fprint(c, "scale=3")
		if got := answers.read(t); got.status != 403 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
		<-asked
	}
}

func TestReadOnlyWhereNotLoopback(t *testing.T) {
	h := newHouse(t, asUser(0))
	h.listeners.TCP([]string{"0.0.0.0:0"})
	_, port, _ := net.SplitHostPort(h.listeners.State()[1].Address)
	h.tcp = "127.0.0.1:" + port // a loopback client does not make it one
	for _, req := range restrictedRequests {
		got := request(t, h.over(t, "tcp"), req.method, req.path, req.body, req.header)
		if call := h.take(); got.status != 403 || call != "" {
			t.Errorf("%s %s: %d, supervisor got %q", req.method, req.path, got.status, call)
		}
	}
	for _, path := range openPaths {
		if got := request(t, h.over(t, "tcp"), "GET", path, "", "Host: any.example"); got.status != 200 {
			t.Errorf("GET %s: %d %s", path, got.status, got.body)
		}
	}
}

func TestHostAndOrigin(t *testing.T) {
	h := newHouse(t, asUser(0))
	_, port, _ := net.SplitHostPort(h.tcp)
	for _, tt := range []struct {
		headers   []string
		get, post int
	}{
		{[]string{"Host: 127.0.0.1"}, 200, 202},
		{[]string{"Host: 127.0.0.1:" + port}, 200, 202},
		{[]string{"Host: 127.0.0.1:1"}, 200, 202}, // through a tunnel
		{[]string{"Host: LocalHost:" + port}, 200, 202},
		{[]string{"Host: sentry.example"}, 200, 202},
		{[]string{"Host: Sentry.Example:443"}, 200, 202},
		{[]string{"Host: evil.example"}, 421, 421},
		{[]string{"Host: 127.0.0.1.evil.example:" + port}, 421, 421},
		{[]string{"Host: localhost.evil.example"}, 421, 421},
		{[]string{"Host: evil.example:127.0.0.1"}, 421, 421},
		{[]string{"Host: 127.0.0.2"}, 421, 421},
		{[]string{"Host: [::1]"}, 421, 421},
		{[]string{"Host: [::ffff:127.0.0.1]:80"}, 200, 202},
		{[]string{"Host: localhost:80x"}, 421, 421},
		{[]string{"Host: localhost:80:80"}, 421, 421},
		{[]string{"Host: [localhost]"}, 421, 421},
		{[]string{"Host: :80"}, 421, 421},

		{[]string{"Host: localhost:" + port, "Origin: http://localhost:" + port}, 200, 202},
		{[]string{"Host: sentry.example", "Origin: https://sentry.example"}, 200, 202},
		{[]string{"Host: localhost:80", "Origin: http://localhost"}, 200, 202},
		{[]string{"Host: localhost:" + port, "Origin: http://127.0.0.1:" + port}, 403, 403},
		{[]string{"Host: localhost:" + port, "Origin: http://localhost:1"}, 403, 403},
		{[]string{"Host: localhost:80", "Origin: https://localhost"}, 403, 403},
		{[]string{"Origin: null"}, 403, 403},
		{[]string{"Origin:"}, 403, 403},
		{[]string{"Origin: http://evil.example"}, 403, 403},
		{[]string{"Origin: http://localhost", "Origin: http://evil.example"}, 403, 403},
		{[]string{"Origin: http://localhost http://evil.example"}, 403, 403},
		{[]string{"Origin: http://evil.example@localhost"}, 403, 403},
		{[]string{"Origin: http://localhost/"}, 403, 403},
		{[]string{"Origin: file://"}, 403, 403},
		{[]string{"Origin: chrome-extension://localhost"}, 403, 403},
		{[]string{"Sec-Fetch-Site: none"}, 200, 202},
		{[]string{"Sec-Fetch-Site: same-origin"}, 200, 202},
		{[]string{"Sec-Fetch-Site: cross-site"}, 200, 403},
		{[]string{"Sec-Fetch-Site: same-site"}, 200, 403},
	} {
		c := h.over(t, "tcp")
		if got := request(t, c, "GET", "/v1/state", "", tt.headers...); got.status != tt.get {
			t.Errorf("%q: GET: %d %s", tt.headers, got.status, got.body)
		}
		got := request(t, c, "POST", "/v1/entries/dummy/stop", "", tt.headers...)
		if call := h.take(); got.status != tt.post || (call != "") != (tt.post == 202) {
			t.Errorf("%q: POST: %d %s, supervisor got %q", tt.headers, got.status, got.body, call)
		}
		c.CloseIdleConnections()
	}
	// The control socket has no address to be mistaken for; pages cannot reach it.
	if got := request(t, h.over(t, "unix"), "GET", "/v1/state", "", "Host: whatever"); got.status != 200 {
		t.Errorf("control socket: %d", got.status)
	}
	if got := request(t, h.over(t, "unix"), "POST", "/v1/stop", "", "Origin: http://evil.example"); got.status != 403 {
		t.Errorf("control socket, foreign origin: %d", got.status)
	}
	h.take()
	// The host of an absolute URL counts, not the header.
	for _, head := range []string{
		"GET http://evil.example/v1/state HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /v1/state HTTP/1.0\r\n\r\n",
	} {
		if got := raw(t, h.tcp, head); got.status != 421 {
			t.Errorf("%q: %d", head, got.status)
		}
	}
	for _, head := range []string{
		"GET /v1/state HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
		"GET /v1/state HTTP/1.1\r\n\r\n",
		"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n",
		"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		if got := raw(t, h.tcp, head); got.status != 400 {
			t.Errorf("%q: %d", head, got.status)
		}
	}
}

func TestIPv6Loopback(t *testing.T) {
	h := newHouse(t, asUser(0))
	h.listeners.TCP([]string{"[::1]:0"})
	st := h.listeners.State()[1]
	if !st.Up {
		t.Skip("needs IPv6: " + st.Error)
	}
	h.tcp = st.Address
	for host, want := range map[string]int{st.Address: 200, "[::1]": 200, "localhost": 200, "127.0.0.1": 421, "::1": 421} {
		if got := request(t, h.over(t, "tcp"), "GET", "/v1/state", "", "Host: "+host); got.status != want {
			t.Errorf("%s: %d", host, got.status)
		}
	}
	if got := request(t, h.over(t, "tcp"), "POST", "/v1/stop", "", "Host: "+st.Address); got.status != 202 {
		t.Errorf("change: %d", got.status)
	}
}

func TestNewPermit(t *testing.T) {
	p := NewPermit([]uint32{12}, []uint32{34, 0})
	if !p.user(0) || !p.user(uint32(os.Geteuid())) || !p.user(12) || p.user(34) || p.user(4000000001) {
		t.Errorf("users: %+v", p)
	}
	if !p.cred(peer.Cred{UID: 99999, GID: 34}) || !p.cred(peer.Cred{UID: 99999, GID: 9, Groups: []uint32{0}}) {
		t.Errorf("groups: %+v", p)
	}
}

// TestNobody is a real client of another user's, over both ways in.
func TestNobody(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.User("nobody"))
	for _, network := range []string{"unix", "tcp"} {
		h := newHouse(t, kernelPeers)
		if got := request(t, h.over(t, network), "POST", "/type/dummy", "scale=3", form); got.status != 200 || h.take() != "scale dummy 3" {
			t.Errorf("root over %s: %d %s", network, got.status, got.body)
		}
		// The socket's directory was made for root alone.
		if err := os.Chmod(filepath.Dir(h.socket), 0o711); err != nil {
			t.Fatal(err)
		}
		out := asNobody(t, network, h)
		// Requests that nobody waited for may still be under way.
		if err := h.server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if call := h.take(); out != "get 200\npost 403\nclosed at once\n" || call != "" {
			t.Errorf("nobody over %s: %q, supervisor got %q", network, out, call)
		}
	}
}

// asNobody runs TestHelperNobody as that user and returns what it printed.
func asNobody(t *testing.T, network string, h *house) string {
	t.Helper()
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	exe, err := os.Open("/proc/self/exe") // its directory may be root's alone
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	cmd := exec.Command("/proc/self/fd/3", "-test.run=^TestHelperNobody$")
	cmd.ExtraFiles = []*os.File{exe}
	cmd.Dir = "/"
	cmd.Env = []string{"API_TEST_NETWORK=" + network, "API_TEST_SOCKET=" + h.socket, "API_TEST_TCP=" + h.tcp}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	i := strings.Index(string(out), "PASS")
	return string(out[:max(i, 0)])
}

func TestHelperNobody(t *testing.T) {
	network := os.Getenv("API_TEST_NETWORK")
	if network == "" {
		return // not run by TestNobody
	}
	h := &house{socket: os.Getenv("API_TEST_SOCKET"), tcp: os.Getenv("API_TEST_TCP")}
	c := h.over(t, network)
	fmt.Println("get", request(t, c, "GET", "/v1/state", "").status)
	fmt.Println("post", request(t, c, "POST", "/type/dummy", "scale=3", form).status)
	// Send and be gone: a socket that is closed reads as root's.
	address := h.tcp
	if network == "unix" {
		address = h.socket
	}
	for range 100 {
		nc, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(nc, "POST /type/dummy HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n"+
			"Content-Type: application/x-www-form-urlencoded\r\n\r\nscale=3")
		nc.Close()
	}
	fmt.Println("closed at once")
}

func FuzzHost(f *testing.F) {
	for _, s := range []string{"localhost", "127.0.0.1:80", "[::1]:80", "a:b:c", ":", "[", "]:1", ""} {
		f.Add(s)
	}
	d := &door{loopback: netip.MustParseAddr("127.0.0.1")}
	f.Fuzz(func(t *testing.T, host string) {
		if checkHost(d, []string{"sentry.example"}, host) != nil {
			return
		}
		name := strings.ToLower(host)
		if i := strings.LastIndexByte(name, ':'); i >= 0 && !strings.HasSuffix(name, "]") {
			name = name[:i]
		}
		known := []string{"localhost", "127.0.0.1", "sentry.example"}
		if ip, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
			name = ip.Unmap().String()
		}
		if !slices.Contains(known, name) {
			t.Errorf("%q was let in", host)
		}
	})
}

func FuzzOrigin(f *testing.F) {
	for _, s := range []string{"http://localhost:8001", "null", "http://localhost:8001@evil", "http://localhost", "HTTP://LOCALHOST:8001"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, origin string) {
		r := &http.Request{Method: "GET", Host: "localhost:8001", Header: http.Header{"Origin": {origin}}}
		if checkOrigin(r) == nil && !strings.EqualFold(origin, "http://localhost:8001") && !strings.EqualFold(origin, "https://localhost:8001") {
			t.Errorf("%q was let in", origin)
		}
	})
}
