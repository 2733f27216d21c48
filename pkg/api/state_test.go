package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

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
	h.server.http.ReadTimeout = 250 * time.Millisecond
	h.server.Start(h.listeners)
	got := request(t, h.over(t, "tcp"), "GET", "/v1/state?after=42&timeout=600ms", "")
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
