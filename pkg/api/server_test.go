package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sentryd/sentryd/pkg/peer"
	"github.com/sentryd/sentryd/pkg/view"
)

func TestLongPollWakesUp(t *testing.T) {
	h := newHouse(t, asUser(0))
	answer := make(chan gotten, 1)
	go func() { answer <- request(t, h.over(t, "tcp"), "GET", "/v1/state?after=42&timeout=1h", "") }()
	<-h.waiting
	h.publish("dummy", view.Backoff)
	if got := <-answer; got.status != 200 || !strings.Contains(got.body, `"version":43`) {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestLongPollOutlivesTheReadTimeout(t *testing.T) {
	h := newHouse(t, asUser(0))
	h.server.Shutdown(t.Context())
	h.server = h.newServer(t, asUser(0), nil)
	h.server.http.ReadTimeout = 10 * time.Millisecond
	h.server.Start(h.listeners)
	got := request(t, h.over(t, "tcp"), "GET", "/v1/state?after=42&timeout=100ms", "")
	if got.status != 200 || !strings.Contains(got.body, `"version":42`) {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestLongPollEndsWithItsClient(t *testing.T) {
	h := newHouse(t, asUser(0))
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://localhost/v1/state?after=42&timeout=1h", nil)
	done := make(chan error, 1)
	go func() {
		_, err := h.over(t, "unix").Do(req)
		done <- err
	}()
	<-h.waiting
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	// Fails, by a timeout, unless the handler returns.
	if err := h.server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWaitUntilSettled(t *testing.T) {
	h := newHouse(t, asUser(0))
	h.after = func() { h.publish("dummy", view.Stopping) }
	answer := make(chan gotten, 1)
	post := func(wait string) {
		answer <- request(t, h.over(t, "unix"), "POST", "/v1/entries/dummy/restart?wait="+wait, "")
	}
	go post("1h")
	<-h.waiting // at 43: stopping
	h.publish("dummy", view.Starting)
	<-h.waiting // at 44
	h.publish("dummy", view.Running)
	if got := <-answer; got.status != 200 || !strings.HasPrefix(got.body, `{"version":42,"entry":{"name":"dummy"`) ||
		!strings.Contains(got.body, `"state":"running"`) {
		t.Errorf("settled: %d %s", got.status, got.body)
	}

	post("10ms")
	<-h.waiting
	if got := <-answer; got.status != 504 || !strings.Contains(got.body, "not settled within 10ms") {
		t.Errorf("not settled: %d %s", got.status, got.body)
	}

	go post("1h")
	<-h.waiting
	h.publish("dummy", "")
	if got := <-answer; got.status != 404 || !strings.Contains(got.body, "removed meanwhile") {
		t.Errorf("removed: %d %s", got.status, got.body)
	}
}

// The command took effect in a version that is not there to be seen yet: the
// present picture, in which the entry looks settled, does not count.
func TestWaitIgnoresOlderVersions(t *testing.T) {
	h := newHouse(t, asUser(0))
	answer := make(chan *view.Entry, 1)
	r, _ := http.NewRequest("POST", "/", nil)
	go func() {
		e, err := h.server.settled(r, "dummy", 43, time.Hour)
		if err != nil {
			t.Error(err)
		}
		answer <- e
	}()
	<-h.waiting
	h.publish("dummy", view.Exited)
	if e := <-answer; e == nil || e.State != view.Exited {
		t.Errorf("got %+v", e)
	}
}

func TestSettled(t *testing.T) {
	for state, want := range map[string]bool{
		view.Stopped: true, view.Starting: false, view.Running: true, view.Stopping: false, view.Backoff: false,
		view.Exited: true, view.Failed: true,
	} {
		e := &view.Entry{Processes: []*view.Process{{State: view.Running}, {State: state}}}
		if Settled(e) != want {
			t.Errorf("%s: %v", state, !want)
		}
	}
	if !Settled(&view.Entry{}) {
		t.Error("an entry of no slots is settled")
	}
}

func TestShutdownAnswersWhoWaits(t *testing.T) {
	h := newHouse(t, asUser(0))
	h.after = func() { h.publish("dummy", view.Starting) }
	settled := make(chan gotten, 1)
	go func() {
		settled <- request(t, h.over(t, "unix"), "POST", "/v1/entries/dummy/start?wait=1h", "")
	}()
	<-h.waiting // at 43
	polls := make(chan gotten, 20)
	for range cap(polls) {
		go func() {
			polls <- request(t, h.over(t, "tcp"), "GET", "/v1/state?after=43&timeout=1h", "")
		}()
	}
	for range cap(polls) {
		<-h.waiting
	}
	start := time.Now()
	if err := h.server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > drainTime {
		t.Errorf("took %v", took)
	}
	for range cap(polls) {
		if got := <-polls; got.status != 200 || !strings.Contains(got.body, `"version":43`) {
			t.Errorf("poll: %d %s", got.status, got.body)
		}
	}
	if got := <-settled; got.status != 202 || got.body != `{"version":42}`+"\n" {
		t.Errorf("wait: %d %s", got.status, got.body)
	}
}

// A failed re-exec: another server takes over the same sockets, and who
// connected in between was kept waiting, not refused.
func TestAnotherServerOnTheSameSockets(t *testing.T) {
	h := newHouse(t, asUser(0))
	for range 3 {
		if err := h.server.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		var conns []net.Conn
		for network, address := range map[string]string{"unix": h.socket, "tcp": h.tcp} {
			c, err := net.Dial(network, address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			fmt.Fprint(c, "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
			conns = append(conns, c)
		}
		h.server = h.newServer(t, asUser(0), nil)
		h.server.Start(h.listeners)
		for _, c := range conns {
			if got := newAnswers(c).read(t); got.status != 200 {
				t.Errorf("got %d", got.status)
			}
		}
	}
}

func TestShutdownDoesNotWaitForSilentConnections(t *testing.T) {
	h := newHouse(t, asUser(0))
	for range 10 {
		c, err := net.Dial("tcp", h.tcp)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	request(t, h.over(t, "tcp"), "GET", "/-/healthy", "") // all before were accepted
	start := time.Now()
	if err := h.server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > drainTime/2 {
		t.Errorf("took %v", took)
	}
}

func TestShutdownCutsWhatTakesLonger(t *testing.T) {
	h := newHouse(t, asUser(0))
	entered, leave := make(chan struct{}), make(chan struct{})
	defer close(leave)
	h.after = func() { close(entered); <-leave }
	go func() {
		req, _ := http.NewRequest("POST", "http://localhost/v1/stop", nil)
		if resp, err := h.over(t, "unix").Do(req); err == nil {
			resp.Body.Close()
			t.Errorf("answered with %d", resp.StatusCode)
		}
	}()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := h.server.Shutdown(ctx); err == nil {
		t.Error("no error says that a request was cut")
	}
}

func TestNothingIsLeft(t *testing.T) {
	request(t, newHouse(t, asUser(0)).over(t, "tcp"), "GET", "/types", "") // warm up
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	t.Run("house", func(t *testing.T) {
		h := newHouse(t, kernelPeers)
		for range 20 {
			c := h.over(t, "tcp")
			request(t, c, "GET", "/v1/state?after=42&timeout=1ms", "")
			request(t, c, "POST", "/v1/entries/dummy/stop?wait=1s", "")
		}
	})
	// Handlers and clients end on their own after the connections are closed.
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > goroutines && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines, were %d", n, goroutines)
	}
	if n := openFiles(t); n > files {
		t.Errorf("%d descriptors, were %d", n, files)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

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
		50*time.Millisecond, 100*time.Millisecond, 50*time.Millisecond
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
		p := h.server.pools[i]
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
	p := h.server.pools[0]
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

func TestEncoderEncodesAVersionOnce(t *testing.T) {
	var e encoder
	st := newFake().state
	a, err := e.encode(st)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := e.encode(st)
	if &a[0] != &b[0] {
		t.Error("encoded twice")
	}
	next := *st
	next.Version++
	c, _ := e.encode(&next)
	var got view.State
	if err := json.Unmarshal(c, &got); err != nil || got.Version != next.Version {
		t.Errorf("got version %d, %v", got.Version, err)
	}
	runtime.KeepAlive(a)
}

func BenchmarkState(b *testing.B) {
	st := &view.State{Version: 1}
	now := time.Now()
	code := 0
	for i := range 10 {
		e := fakeEntry(fmt.Sprintf("entry%d", i), view.Running)
		for slot := range 100 {
			e.Processes = append(e.Processes, &view.Process{
				Slot: slot, PID: 1000 + slot, State: view.Running, Ready: true, StartedAt: &now, Stragglers: []int{},
				LastExit: &view.Exit{At: now, Reason: view.ReasonExited, Code: &code, Initiator: "process"},
			})
		}
		st.Entries = append(st.Entries, e)
	}
	b.Run("new version", func(b *testing.B) {
		var e encoder
		for b.Loop() {
			next := *st
			if _, err := e.encode(&next); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("same version over http", func(b *testing.B) {
		h := newHouse(b, asUser(0))
		h.state = st
		c := h.over(b, "unix")
		for b.Loop() {
			request(b, c, "GET", "/v1/state", "")
		}
	})
}
