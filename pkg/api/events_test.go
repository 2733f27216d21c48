package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sentryd/sentryd/pkg/view"
)

// openStream asks for events and returns once the server has begun to answer.
func openStream(t *testing.T, h *house, path string, headers ...string) *bufio.Reader {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://localhost"+path, nil)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := h.over(t, "unix").Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("%d %s", resp.StatusCode, b)
	}
	return bufio.NewReader(resp.Body)
}

func readLines(t *testing.T, r *bufio.Reader, n int) (lines []string) {
	t.Helper()
	for range n {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("after %q: %v", lines, err)
		}
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	return lines
}

func TestEventsAreServedAsTheyHappen(t *testing.T) {
	h := newHouse(t, asUser(0))
	h.happen(view.EventAdded)
	r := openStream(t, h, "/v1/events")
	<-h.waiting
	h.happen(view.EventStarted)
	want := []string{
		"id: 2", "event: started",
		`data: {"seq":2,"at":"0001-01-01T00:00:00Z","kind":"started","entry":"dummy"}`, "",
	}
	if d := cmp.Diff(want, readLines(t, r, 4)); d != "" {
		t.Error(d)
	}
	<-h.waiting
	h.happen(view.EventExited)
	if got := readLines(t, r, 4); got[0] != "id: 3" {
		t.Error(got)
	}
}

func TestEventsResumeWhereTheReaderWas(t *testing.T) {
	h := newHouse(t, asUser(0))
	for range 5 {
		h.happen(view.EventStarted)
	}
	for _, headers := range [][]string{{"Last-Event-ID: 4"}, nil} {
		path := "/v1/events"
		if headers == nil {
			path += "?since=4"
		}
		if got := readLines(t, openStream(t, h, path, headers...), 1); got[0] != "id: 5" {
			t.Errorf("%s %v: %v", path, headers, got)
		}
	}
	// One that is not there any more is said, and passed over.
	got := readLines(t, openStream(t, h, "/v1/events?since=1", "Accept: application/x-ndjson"), 2)
	if !strings.Contains(got[0], `"seq":2,`) || !strings.Contains(got[0], `"kind":"missed","missed":1`) || !strings.Contains(got[1], `"seq":3,`) {
		t.Errorf("%q", got)
	}
}

func TestEventsEndCleanlyWithTheServer(t *testing.T) {
	h := newHouse(t, asUser(0))
	r := openStream(t, h, "/v1/events?since=0", "Accept: text/html, application/x-ndjson")
	<-h.waiting
	h.happen(view.EventStarted)
	<-h.waiting
	if err := h.server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(r)
	if err != nil || !strings.HasPrefix(string(rest), `{"seq":1,`) || strings.Count(string(rest), "\n") != 1 {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestEventsNeedARight(t *testing.T) {
	h := newHouse(t, asUser(12345))
	h.happen(view.EventStarted)
	for _, network := range []string{"unix", "tcp"} {
		if got := request(t, h.over(t, network), "GET", "/v1/events?since=0", ""); got.status != 403 {
			t.Errorf("%s: %d %s", network, got.status, got.body)
		}
	}
	for _, path := range []string{"?since=x", "?since=01", "?since=-1", "?until=3", "?timeout=x"} {
		h := newHouse(t, asUser(0))
		if got := request(t, h.over(t, "unix"), "GET", "/v1/events"+path, ""); got.status != 400 {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
}

func TestClientFollowsOverAReexec(t *testing.T) {
	h := newHouse(t, asUser(0))
	c := NewClient(h.socket)
	t.Cleanup(c.Close)
	for range 3 {
		h.happen(view.EventStarted)
	}
	var seen []uint64
	if err := c.History(t.Context(), 0, func(e view.Event) error { seen = append(seen, e.Seq); return nil }); err != nil {
		t.Fatal(err)
	}
	if !cmp.Equal(seen, []uint64{1, 2, 3}) {
		t.Errorf("history: %v", seen)
	}
	enough := errors.New("enough")
	events := make(chan view.Event)
	done := make(chan error, 1)
	go func() {
		done <- c.Follow(t.Context(), 3, func(e view.Event) error {
			events <- e
			if e.Seq == 5 {
				return enough
			}
			return nil
		})
	}()
	<-h.waiting
	h.happen(view.EventExited)
	if e := <-events; e.Seq != 4 {
		t.Errorf("%+v", e)
	}
	h.server.Shutdown(t.Context())
	h.happen(view.EventReloaded)
	h.newServer(t, asUser(0), nil).Start(h.listeners)
	if e := <-events; e.Seq != 5 || e.Kind != view.EventReloaded {
		t.Errorf("%+v", e)
	}
	if err := <-done; err != enough {
		t.Error(err)
	}
	h.listeners.Close()
	if err := c.Follow(t.Context(), 3, func(view.Event) error { return nil }); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("without a daemon: %v", err)
	}
}
