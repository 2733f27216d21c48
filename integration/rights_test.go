package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sentryd/sentryd/internal/testenv"
)

// sleeper is a configuration in which nothing happens by itself, so that the
// whole state stays as it is unless somebody changes it.
const sleeper = "http: {listen: '127.0.0.1:0'}\nentries:\n  dummy: {command: sleep 1000}\n"

// unchanged returns a check that the state is still what it is now, to the
// letter.
func (d *daemon) unchanged() func(after any) {
	before := d.get("/v1/state")
	return func(after any) {
		d.t.Helper()
		if now := d.get("/v1/state"); now != before {
			d.t.Errorf("%+v has changed the state:\n%s\n%s", after, before, now)
			before = now
		}
	}
}

// TestCurl is what the seed's users type.
func TestCurl(t *testing.T) {
	who := nobody(t)
	testenv.Need(t, testenv.Tool("curl"))
	home, bin := openDir(t)
	d := startDaemon(t, sleeper, options{dir: home, bin: bin})
	d.running("dummy", 1)
	url := "http://" + d.tcpAddress() + "/type/dummy"

	unchanged := d.unchanged()
	code, out := d.runAs(who, "curl", "-s", "-w", "%{http_code} %{content_type}", "-d", "scale=3", url)
	if code != 0 || !strings.HasSuffix(out, "403 application/problem+json") {
		t.Errorf("as nobody: exit code %d\n%s", code, out)
	}
	unchanged("curl as nobody")
	if code, out := d.runAs(nil, "curl", "-s", "-d", "scale=3", url); code != 0 || out != "Ok." {
		t.Errorf("as root: exit code %d, printed %q", code, out)
	}
	d.running("dummy", 3)
	if code, out := d.runAs(who, "curl", "-s", strings.TrimSuffix(url, "/dummy")+"s"); code != 0 || out != "3 dummy: sleep 1000  -- 1000ms.\n" {
		t.Errorf("as nobody: exit code %d, printed %q", code, out)
	}
	if code, out := d.runAs(nil, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", "scale=3", url+"x"); code != 0 || out != "404" {
		t.Errorf("of an unknown entry: exit code %d, printed %q", code, out)
	}
	if code, out := d.runAs(nil, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", url); code != 0 || out != "400" {
		t.Errorf("without a body: exit code %d, printed %q", code, out)
	}
}

// TestScaleTakesCountsOnly: decimal digits from 0 to 10000, and nothing else.
func TestScaleTakesCountsOnly(t *testing.T) {
	d := startDaemon(t, sleeper, options{})
	d.running("dummy", 1)
	c := clientAs(t, nil, d.tcpAddress())
	unchanged := d.unchanged()
	for _, n := range []string{
		"017", "-1", "1e9", "2.0", "", "1_000", "9223372036854775808", "18446744073709551617", "NaN", "%2B3", "+3", "%203", "3%20",
		"3%0A", "10001", "0x3", "0b1", "00", "%D9%A3", "3%00", "3;", "3,000", "Infinity", "true", "null", "3&scale=4", "3&other=1",
	} {
		r := request{method: "POST", path: "/type/dummy", form: "scale=" + n}
		if status, body := d.send(c, r); status != http.StatusBadRequest {
			t.Errorf("%q: %d %s", r.form, status, body)
		}
		unchanged(r)
	}
	for _, form := range []string{"", "scale", "Scale=3", "count=3", "scale=%zz"} {
		r := request{method: "POST", path: "/type/dummy", form: form}
		if status, body := d.send(c, r); status != http.StatusBadRequest {
			t.Errorf("%q: %d %s", form, status, body)
		}
		unchanged(r)
	}
	for _, json := range []string{
		`{"count":017}`, `{"count":-1}`, `{"count":1e9}`, `{"count":2.0}`, `{"count":"3"}`, `{"count":null}`, `{}`, `{"count":10001}`,
		`{"count":9223372036854775808}`, `{"count":3}{"count":4}`, `{"count":3,"x":1}`, `[3]`, `3`, `{"count":1_000}`, `{"count":3,"count":4}`, `{"Count":3}`,
	} {
		r := request{method: "POST", path: "/v1/entries/dummy/scale", json: json}
		if status, body := d.send(c, r); status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", json, status, body)
		}
		unchanged(r)
	}
	for _, r := range []request{
		{method: "POST", path: "/type/dummy?scale=3"},
		{method: "PUT", path: "/type/dummy", form: "scale=3"},
		{method: "GET", path: "/type/dummy?scale=3"},
		{method: "GET", path: "/v1/entries/dummy/stop"},
		{method: "HEAD", path: "/v1/stop"},
		{method: "GET", path: "/v1/reload"},
	} {
		if status, body := d.send(c, r); status/100 != 4 {
			t.Errorf("%+v: %d %s", r, status, body)
		}
		unchanged(r)
	}
	if status, body := d.send(c, request{method: "POST", path: "/type/dummy", form: "scale=2"}); status != http.StatusOK || body != "Ok." {
		t.Errorf("scale=2: %d %s", status, body)
	}
	d.running("dummy", 2)
}

// TestProxiesAndPagesAreRefused: a proxy's user says nothing about the client's,
// and a page in a browser has no business here.
func TestProxiesAndPagesAreRefused(t *testing.T) {
	d := startDaemon(t, sleeper, options{})
	d.running("dummy", 1)
	address := d.tcpAddress()
	c := clientAs(t, nil, address)
	unchanged := d.unchanged()
	for _, header := range []string{
		"Forwarded: for=127.0.0.1", "Forwarded:", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: https",
		"x-forwarded-anything: 1", "X-Real-IP: 127.0.0.1", "Via: 1.1 proxy", "Via:",
		"Origin: http://example.org", "Origin: null", "Origin:", "Origin: http://127.0.0.1:1", "Origin: https://" + address,
		"Origin: http://localhost.example.org", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site",
	} {
		for _, r := range []request{
			{method: "POST", path: "/type/dummy", form: "scale=3", header: header},
			{method: "POST", path: "/v1/stop", header: header},
			{method: "POST", path: "/v1/reload", header: header},
			{method: "POST", path: "/-/reload", header: header},
			{method: "POST", path: "/v1/entries/dummy/stop", header: header},
		} {
			if status, body := d.send(c, r); status != http.StatusForbidden {
				t.Errorf("%+v: %d %s", r, status, body)
			}
			unchanged(r)
		}
	}
	for _, header := range []string{"Origin: null", "Origin: http://example.org"} {
		if status, body := d.send(c, request{method: "GET", path: "/v1/state", header: header}); status != http.StatusForbidden {
			t.Errorf("GET with %s: %d %s", header, status, body)
		}
	}
	for _, host := range []string{"example.org", "example.org:80", "127.0.0.2", "localhost.example.org", "127.0.0.1.example.org", "[::1]", "0.0.0.0"} {
		for _, r := range []request{
			{method: "GET", path: "/v1/state", host: host},
			{method: "POST", path: "/type/dummy", form: "scale=3", host: host},
		} {
			if status, body := d.send(c, r); status != http.StatusMisdirectedRequest {
				t.Errorf("%+v: %d %s", r, status, body)
			}
			unchanged(r)
		}
	}
	for _, host := range []string{address, "localhost", "LOCALHOST:8001", "127.0.0.1"} {
		if status, body := d.send(c, request{method: "GET", path: "/-/healthy", host: host}); status != http.StatusOK {
			t.Errorf("host %s: %d %s", host, status, body)
		}
	}
	// A page of the daemon's own would be in order.
	own := request{method: "POST", path: "/type/dummy", form: "scale=2", header: "Origin: http://" + address, host: address}
	if status, body := d.send(c, own); status != http.StatusOK {
		t.Errorf("of its own origin: %d %s", status, body)
	}
	d.running("dummy", 2)
}

// reads are the routes that are open to everybody, changes those that need a
// right, each with a body that would do.
var (
	reads = []request{
		{method: "GET", path: "/types"}, {method: "GET", path: "/v1/state"}, {method: "GET", path: "/v1/entries"},
		{method: "GET", path: "/v1/entries/dummy"}, {method: "GET", path: "/metrics"}, {method: "GET", path: "/-/healthy"}, {method: "GET", path: "/-/ready"},
	}
	changes = []request{
		{method: "POST", path: "/type/dummy", form: "scale=3"},
		{method: "POST", path: "/type/absent", form: "scale=3"},
		{method: "POST", path: "/v1/entries/dummy/scale", json: `{"count":3}`},
		{method: "POST", path: "/v1/entries/dummy/scale", form: "count=3"},
		{method: "POST", path: "/v1/entries/dummy/start"},
		{method: "POST", path: "/v1/entries/dummy/stop"},
		{method: "POST", path: "/v1/entries/dummy/restart", json: `{"all_at_once":true}`},
		{method: "POST", path: "/v1/entries/dummy/signal", json: `{"signal":"KILL"}`},
		{method: "GET", path: "/v1/diff"},
		{method: "POST", path: "/v1/reload"},
		{method: "POST", path: "/-/reload"},
		{method: "POST", path: "/v1/stop"},
		{method: "POST", path: "/v1/stop?keep"},
	}
)

// readOnly checks that a client may look and may not touch.
func (d *daemon) readOnly(c *http.Client) {
	d.t.Helper()
	unchanged := d.unchanged()
	for _, r := range reads {
		if status, body := d.send(c, r); status != http.StatusOK {
			d.t.Errorf("%s %s: %d %s", r.method, r.path, status, body)
		}
	}
	for _, r := range changes {
		if status, body := d.send(c, r); status != http.StatusForbidden {
			d.t.Errorf("%s %s: %d %s", r.method, r.path, status, body)
		}
		unchanged(r)
	}
}

// TestOthersMayLook: a user without a right, on both ways in.
func TestOthersMayLook(t *testing.T) {
	who := nobody(t)
	home, bin := openDir(t)
	d := startDaemon(t, sleeper, options{dir: home, bin: bin})
	d.running("dummy", 1)
	d.readOnly(clientAs(t, who, d.runtimeFile("control.sock")))
	d.readOnly(clientAs(t, who, d.tcpAddress()))

	unchanged := d.unchanged()
	for _, args := range [][]string{
		{"scale", "dummy=3"}, {"start", "dummy"}, {"stop", "dummy"}, {"restart", "dummy"}, {"signal", "KILL", "dummy"},
		{"reload"}, {"diff"}, {"stop"}, {"stop", "--keep"},
	} {
		code, out := d.runAs(who, append([]string{bin, "-c", d.configPath()}, args...)...)
		if code != 4 || !strings.HasPrefix(out, "sentryd: ") {
			t.Errorf("sentryd %v as nobody: exit code %d\n%s", args, code, out)
		}
		unchanged(args)
	}
	if code, out := d.runAs(who, bin, "-c", d.configPath(), "status", "dummy"); code != 0 {
		t.Errorf("status as nobody: exit code %d\n%s", code, out)
	}
}

// TestControlNamesUsers: control.users lets a user in on both ways, a group of
// control.groups on the control socket, where the kernel tells groups.
func TestControlNamesUsers(t *testing.T) {
	who := nobody(t)
	home, bin := openDir(t)
	with := func(control string) string { return "control: {" + control + "}\n" + sleeper }
	d := startDaemon(t, with("users: [nobody]"), options{dir: home, bin: bin})
	d.running("dummy", 1)
	socket := clientAs(t, who, d.runtimeFile("control.sock"))
	tcp := clientAs(t, who, d.tcpAddress())
	scale := func(c *http.Client, n, want int) {
		t.Helper()
		r := request{method: "POST", path: "/type/dummy", form: fmt.Sprintf("scale=%d", n)}
		if status, body := d.send(c, r); status != want {
			t.Errorf("scale=%d: %d, want %d: %s", n, status, want, body)
		}
		if want == http.StatusOK {
			d.running("dummy", n)
		}
	}
	scale(socket, 2, 200)
	scale(tcp, 3, 200)

	d.configure(with(fmt.Sprintf("groups: [%d]", who.Gid)))
	d.must("reload")
	scale(socket, 1, 200)
	scale(tcp, 2, 403)

	d.configure(sleeper)
	d.must("reload")
	scale(socket, 2, 403)
	scale(tcp, 2, 403)
}

// TestSendAndClose: who sends a command and is gone before he can be looked at
// has no right, and root's is not lent to him.
func TestSendAndClose(t *testing.T) {
	who := nobody(t)
	home, bin := openDir(t)
	d := startDaemon(t, sleeper, options{dir: home, bin: bin})
	d.running("dummy", 1)
	unchanged := d.unchanged()
	const command = "POST /type/dummy HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\nscale=3"
	half := func(c net.Conn) error { return c.(interface{ CloseWrite() error }).CloseWrite() }
	for _, address := range []string{d.tcpAddress(), d.runtimeFile("control.sock")} {
		for i := range often(40, 200, 200) {
			c, err := dialAs(who, "", address)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(c, command); err != nil {
				t.Fatal(err)
			}
			switch tcp, isTCP := c.(*net.TCPConn); {
			case i%3 == 0: // closed
			case i%3 == 1 && isTCP: // reset
				err = tcp.SetLinger(0)
			default: // half-closed, then closed by the other side
				if err = half(c); err == nil {
					_, err = io.Copy(io.Discard, c)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
		// A last one is answered after those before it have been taken up.
		if status, body := d.send(clientAs(t, who, address), changes[0]); status != http.StatusForbidden {
			t.Errorf("%d %s", status, body)
		}
		unchanged("send and close on " + address)
	}
	d.stop() // answers what is still in flight
	if n := strings.Count(d.out.String(), "Started at"); n != 1 {
		t.Errorf("%d starts\n%s", n, d)
	}
}

// TestNotLoopbackIsReadOnly runs the daemon in a network namespace of its own,
// where an address that is not loopback is nobody's else. There is no proc
// connector there, which is to be said.
func TestNotLoopbackIsReadOnly(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.Tool("unshare"), testenv.Tool("ip"))
	bin := filepath.Join(t.TempDir(), "sentryd-in-netns")
	script := "#!/bin/sh\nexec unshare -n sh -c 'ip link set lo up && ip addr add 192.0.2.1/32 dev lo && exec \"$0\" \"$@\"' " + docsBinary(t) + " \"$@\"\n"
	if err := os.WriteFile(bin, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, strings.Replace(sleeper, "'127.0.0.1:0'", "['192.0.2.1:8001', '127.0.0.1:8001']", 1), options{bin: bin})
	s := d.running("dummy", 1)
	if s.Daemon.ProcConnector.Up || s.Daemon.ProcConnector.Reason == "" {
		t.Errorf("the proc connector in a network namespace: %+v", s.Daemon.ProcConnector)
	}
	within := func(address string) *http.Client {
		tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return dialAs(nil, fmt.Sprintf("/proc/%d/ns/net", d.pid), address)
		}}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
	d.readOnly(within("192.0.2.1:8001"))
	if status, body := d.send(within("127.0.0.1:8001"), changes[0]); status != http.StatusOK {
		t.Errorf("on loopback: %d %s", status, body)
	}
	d.running("dummy", 3)
}

// TestHalfOfTheConnections: users without a right cannot shut out those with
// one, however many connections they hold, each with a request that waits.
func TestHalfOfTheConnections(t *testing.T) {
	who := nobody(t)
	home, bin := openDir(t)
	d := startDaemon(t, sleeper, options{dir: home, bin: bin})
	d.running("dummy", 1)
	for _, address := range []string{d.runtimeFile("control.sock"), d.tcpAddress()} {
		var held []net.Conn
		for range 600 {
			c, err := dialAs(who, "", address)
			if err != nil {
				t.Fatalf("connection %d: %v", len(held), err)
			}
			held = append(held, c)
			// Refused or cut off, it is no longer in the way either.
			_, _ = io.WriteString(c, "GET /v1/state?after=1000000&timeout=60s HTTP/1.1\r\nHost: localhost\r\n\r\n")
		}
		c := clientAs(t, nil, address)
		c.Timeout = testenv.Slow(20 * time.Second)
		if status, body := d.send(c, request{method: "POST", path: "/type/dummy", form: "scale=1"}); status != http.StatusOK {
			t.Errorf("on %s: %d %s", address, status, body)
		}
		for _, c := range held {
			c.Close()
		}
	}
}
