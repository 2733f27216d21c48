package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sentryd/sentryd/pkg/view"
)

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

// Over a re-exec a request is answered or cut, never refused; and the client
// makes up for the cuts when it only reads.
func TestRequestsOverManyServers(t *testing.T) {
	h := newHouse(t, asUser(0))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var answered, cut [2]atomic.Int64
	var clients sync.WaitGroup
	for i, address := range []string{h.socket, h.tcp} {
		clients.Go(func() {
			network := "unix"
			if address == h.tcp {
				network = "tcp"
			}
			for ctx.Err() == nil {
				c := h.over(t, network)
				resp, err := c.Get("http://localhost/-/healthy")
				switch {
				case err == nil && resp.StatusCode == http.StatusOK:
					answered[i].Add(1)
					resp.Body.Close()
				case wasCut(err):
					cut[i].Add(1)
				default:
					t.Errorf("%s: %v", network, err)
				}
				c.CloseIdleConnections()
			}
		})
	}
	for n := 0; n < 20 || answered[0].Load() < 20 || answered[1].Load() < 20; n++ {
		if err := h.server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		h.server = h.newServer(t, asUser(0), nil)
		h.server.Start(h.listeners)
		request(t, h.over(t, "unix"), "GET", "/-/healthy", "")
	}
	cancel()
	clients.Wait()
	for i := range answered {
		t.Logf("answered %d, cut %d", answered[i].Load(), cut[i].Load())
	}
}

// A reload that waits for another must not hold that one up.
func TestShutdownEndsAReloadThatWaits(t *testing.T) {
	for _, path := range []string{"/v1/reload", "/-/reload"} {
		h := newHouse(t, asUser(0))
		h.busy = true
		done := make(chan gotten)
		go func() { done <- request(t, h.over(t, "unix"), "POST", path, "") }()
		<-h.waiting
		if err := h.server.Shutdown(t.Context()); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if g := <-done; g.status != http.StatusServiceUnavailable {
			t.Errorf("%s: %v", path, g)
		}
	}
}
