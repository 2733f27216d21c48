package api

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sentryd/sentryd/pkg/peer"
	"github.com/sentryd/sentryd/pkg/view"
)

func TestLimitsOfARequest(t *testing.T) {
	h := newHouse(t, asUser(0))
	post := "POST /type/dummy HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
	for _, tt := range []struct {
		name, request string
		status        int
	}{
		{"header of 1 MB", "GET /types HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", 431},
		{"URL of 1 MB", "GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\nHost: localhost\r\n\r\n", 431},
		{"announced body of 1 GB", post + "Content-Length: 1073741824\r\n\r\n", 413},
		{"expected body of 1 GB", post + "Expect: 100-continue\r\nContent-Length: 1073741824\r\n\r\n", 413},
		{"chunks of more than that", post + "Transfer-Encoding: chunked\r\n\r\n4001\r\n" + strings.Repeat("x", 0x4001) + "\r\n", 413},
		{"negative length", post + "Content-Length: -1\r\n\r\n", 400},
		{"two lengths", post + "Content-Length: 7\r\nContent-Length: 8\r\n\r\nscale=33", 400},
		{"encoded", post + "Content-Encoding: gzip\r\nContent-Length: 7\r\n\r\nscale=3", 415},
		{"two types", post + "Content-Type: application/json\r\nContent-Length: 7\r\n\r\nscale=3", 415},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
		{"not HTTP", "\x16\x03\x01\x02\r\n\r\n", 400},
		{"NUL in a header", "GET /types HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\n\r\n", 400},
	} {
		c, err := net.Dial("tcp", h.tcp)
		if err != nil {
			t.Fatal(err)
		}
		// The server need not read all of it before it answers.
		go io.WriteString(c, tt.request)
		if got := newAnswers(c).read(t); got.status != tt.status {
			t.Errorf("%s: %d %s", tt.name, got.status, got.body)
		}
		c.Close()
	}
	if call := h.take(); call != "" {
		t.Errorf("supervisor got %q", call)
	}
	if got := request(t, h.over(t, "tcp"), "GET", "/-/healthy", ""); got.status != 200 {
		t.Errorf("afterwards: %d", got.status)
	}
}

func TestSlowClientsAreCut(t *testing.T) {
	h := newHouse(t, asUser(0))
	h.server.Shutdown(t.Context())
	h.server = h.newServer(t, asUser(0), nil)
	h.server.http.ReadHeaderTimeout, h.server.http.ReadTimeout, h.server.http.IdleTimeout =
		300*time.Millisecond, 600*time.Millisecond, 300*time.Millisecond
	h.server.Start(h.listeners)
	for name, part := range map[string]string{
		"nothing": "", "half a header": "GET /types HTTP/1.1\r\nHost: loc",
		"half a body": "POST /type/dummy HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n\r\nsca",
		"idle":        "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		c, err := net.Dial("tcp", h.tcp)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, part)
		b, err := io.ReadAll(c) // ends when the server closes
		if err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", name, err)
		}
		if name == "half a body" && !bytes.Contains(b, []byte("408 Request Timeout")) {
			t.Errorf("%s: %s", name, b)
		}
	}
	if call := h.take(); call != "" {
		t.Errorf("supervisor got %q", call)
	}
}

func TestIdleConnectionsKeepNobodyOut(t *testing.T) {
	const stranger = 4000000001
	h := newHouse(t, asUser(stranger))
	for network, address := range map[string]string{"unix": h.socket, "tcp": h.tcp} {
		for range 2 * maxConns {
			c, err := net.Dial(network, address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		if got := request(t, h.over(t, network), "GET", "/-/healthy", ""); got.status != 200 {
			t.Errorf("%s: %d", network, got.status)
		}
	}
	h.server.mu.Lock()
	defer h.server.mu.Unlock()
	for i, limit := range []int{maxConns / 2, maxConns} {
		p := h.server.gates[i].pool
		p.mu.Lock()
		if len(p.open) > limit || len(p.open) != p.openOthers {
			t.Errorf("pool %d: %d connections, %d of others", i, len(p.open), p.openOthers)
		}
		p.mu.Unlock()
	}
}

func TestPool(t *testing.T) {
	p := newPool(4, 2)
	var ends []net.Conn
	dial := func(privileged bool) *conn {
		a, b := net.Pipe()
		ends = append(ends, b)
		return &conn{Conn: a, pool: p, privileged: privileged}
	}
	open := func(c *conn) bool { _, ok := p.open[c]; return ok }
	busy := func(cs ...*conn) {
		for _, c := range cs {
			p.changed(c, http.StateActive)
		}
	}

	o1, o2, o3 := dial(false), dial(false), dial(false)
	for _, c := range []*conn{o1, o2} {
		if !p.admit(c) {
			t.Fatal("no room")
		}
	}
	p.changed(o1, http.StateActive)
	p.changed(o1, http.StateIdle) // now o2 is idle longest
	if !p.admit(o3) || open(o2) || !open(o1) {
		t.Error("the longest idle did not give way")
	}
	busy(o1, o3)
	if p.admit(dial(false)) {
		t.Error("others got more than their share")
	}
	r1, r2, r3 := dial(true), dial(true), dial(true)
	if !p.admit(r1) || !p.admit(r2) {
		t.Error("no room for those with the right")
	}
	busy(r1)
	if !p.admit(r3) || open(r2) {
		t.Error("one with the right did not give way to another")
	}
	p.changed(o1, http.StateIdle)
	if r4 := dial(true); !p.admit(r4) || open(o1) || !open(r3) {
		t.Error("one without the right did not give way first")
	}
	if o4 := dial(false); p.admit(o4) {
		t.Error("one with the right gave way to one without")
	}
	r3.Close()
	r3.Close()
	if len(p.open) != 3 || p.openOthers != 1 {
		t.Errorf("%d open, %d of others", len(p.open), p.openOthers)
	}
	p.changed(r3, http.StateIdle) // closed meanwhile
	p.closeIdle()
	if len(p.open) != 2 || p.idle.Len() != 0 {
		t.Errorf("after closeIdle: %d open, %d idle", len(p.open), p.idle.Len())
	}
	for _, c := range ends {
		c.Close()
	}
}

func TestPolls(t *testing.T) {
	// Who has no right may keep half of their connections waiting.
	h := newHouse(t, peers{
		unix: func(syscall.Conn) (peer.Cred, error) { return peer.Cred{UID: 4000000001}, nil },
		tcp:  kernelPeers.tcp,
	})
	h.server.mu.Lock()
	p := h.server.gates[0].pool
	h.server.mu.Unlock()
	p.mu.Lock()
	p.others = 4
	p.mu.Unlock()
	answers := make(chan gotten, 2)
	for range 2 {
		go func() { answers <- request(t, h.over(t, "unix"), "GET", "/v1/state?after=42", "") }()
		<-h.waiting
	}
	if got := request(t, h.over(t, "unix"), "GET", "/v1/state?after=42", ""); got.status != 503 {
		t.Errorf("one more: %d %s", got.status, got.body)
	}
	h.publish("dummy", view.Backoff)
	for range 2 {
		if got := <-answers; got.status != 200 {
			t.Errorf("got %d", got.status)
		}
	}
	if got := request(t, h.over(t, "unix"), "GET", "/v1/state?after=43&timeout=1ms", ""); got.status != 200 {
		t.Errorf("afterwards: %d", got.status)
	}
}

// A client that does not read its answer holds up nobody else.
func TestSlowReader(t *testing.T) {
	h := newHouse(t, asUser(0))
	h.state.Entries[0].Command[1] = strings.Repeat("x", 16<<20) // more than socket buffers take
	c, err := net.Dial("unix", h.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /v1/state HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if line := newAnswers(c).line(t); line != "HTTP/1.1 200 OK" {
		t.Fatal(line)
	}
	if got := request(t, h.over(t, "unix"), "GET", "/v1/state", ""); got.status != 200 || len(got.body) < 16<<20 {
		t.Errorf("got %d, %d bytes", got.status, len(got.body))
	}
}
