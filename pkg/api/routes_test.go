package api

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/sentryd/sentryd/pkg/view"
)

const (
	form    = "Content-Type: application/x-www-form-urlencoded"
	jsonHdr = "Content-Type: application/json"
)

func TestRoutes(t *testing.T) {
	h := newHouse(t, asUser(0))
	for _, tt := range []struct {
		method, path, body, header string

		status int
		call   string // what reached the supervisor
		answer string // a part of the body
	}{
		{"GET", "/types", "", "", 200, "", "1 dummy: sleep 4  -- 1000ms.\n1 idle: sleep 4  -- 1000ms.\n"},
		{"HEAD", "/types", "", "", 200, "", ""},
		{"POST", "/types", "", "", 405, "", "POST is not possible here"},
		{"POST", "/type/dummy", "scale=3", form, 200, "scale dummy 3", "Ok."},
		{"POST", "/type/dummy", "scale=3", form + "; charset=utf-8", 200, "scale dummy 3", "Ok."},
		{"POST", "/type/dummy", "scale=%33", form, 200, "scale dummy 3", "Ok."},
		{"POST", "/type/dummy", "scale=0", form, 200, "scale dummy 0", "Ok."},
		{"POST", "/type/dummy", "scale=10000", form, 200, "scale dummy 10000", "Ok."},
		{"POST", "/type/dummy", "scale=10001", form, 400, "", "from 0 to 10000"},
		{"POST", "/type/dummy", "scale=017", form, 400, "", "from 0 to 10000"},
		{"POST", "/type/dummy", "scale=-1", form, 400, "", "from 0 to 10000"},
		{"POST", "/type/dummy", "scale=%2B1", form, 400, "", "from 0 to 10000"},
		{"POST", "/type/dummy", "scale=+1", form, 400, "", "from 0 to 10000"}, // a blank and 1
		{"POST", "/type/dummy", "scale=1e9", form, 400, "", "from 0 to 10000"},
		{"POST", "/type/dummy", "scale=2.0", form, 400, "", "from 0 to 10000"},
		{"POST", "/type/dummy", "scale=", form, 400, "", "from 0 to 10000"},
		{"POST", "/type/dummy", "scale=NaN", form, 400, "", "from 0 to 10000"},
		{"POST", "/type/dummy", "scale=1_000", form, 400, "", "from 0 to 10000"},
		{"POST", "/type/dummy", "scale=9223372036854775808", form, 400, "", "from 0 to 10000"},
		{"POST", "/type/dummy", "scale=%D9%A3", form, 400, "", "from 0 to 10000"}, // ٣ is a digit, too
		{"POST", "/type/dummy", "", form, 400, "", "scale=NUMBER"},
		{"POST", "/type/dummy", "scale=1&scale=2", form, 400, "", "scale=NUMBER"},
		{"POST", "/type/dummy", "scale=1&count=2", form, 400, "", "scale=NUMBER"},
		{"POST", "/type/dummy", "scale=1;count=2", form, 400, "", "scale=NUMBER"},
		{"POST", "/type/dummy?scale=1", "scale=1", form, 400, "", "unknown query parameter"},
		{"POST", "/type/dummy", "", "", 400, "", "no body"},
		{"POST", "/type/dummy", "", "Content-Type: text/plain", 415, "", "Content-Type"},
		{"POST", "/type/dummy", "scale=3", "", 415, "", "Content-Type"},
		{"POST", "/type/dummy", "scale=3", "Content-Type: multipart/form-data", 415, "", "Content-Type"},
		{"POST", "/type/dummy", "scale=3", form + "; charset", 415, "", "Content-Type"},
		{"GET", "/type/dummy?scale=3", "", "", 405, "", "GET is not possible here"},
		{"POST", "/type/a/b", "scale=3", form, 404, "", "no such page"},

		{"GET", "/v1/entries/dummy/tree", "", "", 200, "", `{"slot":0,"incarnation":2,"processes":[{"pid":1550,`},
		{"GET", "/v1/entries/nope/tree", "", "", 404, "", "no such entry: nope"},
		{"GET", "/v1/entries/dummy/tree?slot=0", "", "", 400, "", "unknown query parameter"},
		{"POST", "/v1/entries/dummy/tree", "", "", 405, "", "POST is not possible here"},

		{"GET", "/v1/state", "", "", 200, "", `"version":42`},
		{"GET", "/v1/state?after=0", "", "", 200, "", `"version":42`},
		{"GET", "/v1/state?after=43&timeout=1h", "", "", 200, "", `"version":42`},
		{"GET", "/v1/state?after=42&timeout=0s", "", "", 200, "", `"version":42`},
		{"GET", "/v1/state?after=42&timeout=1ms", "", "", 200, "", `"version":42`},
		{"GET", "/v1/state?after=-1", "", "", 400, "", "after must be"},
		{"GET", "/v1/state?after=042", "", "", 400, "", "after must be"},
		{"GET", "/v1/state?after=", "", "", 400, "", "after must be"},
		{"GET", "/v1/state?after=18446744073709551616", "", "", 400, "", "after must be"},
		{"GET", "/v1/state?after=1&after=2", "", "", 400, "", "twice"},
		{"GET", "/v1/state?timeout=30", "", "", 400, "", "timeout must be"},
		{"GET", "/v1/state?timeout=-1s", "", "", 400, "", "timeout must be"},
		{"GET", "/v1/state?timeout=2h", "", "", 400, "", "timeout must be"},
		{"GET", "/v1/state?befor=1", "", "", 400, "", `unknown query parameter \"befor\"`},
		{"GET", "/v1/state?%zz", "", "", 400, "", "malformed query"},
		{"POST", "/v1/state", "", "", 405, "", ""},
		{"GET", "/v1/entries", "", "", 200, "", `[{"name":"dummy"`},
		{"GET", "/v1/entries?x", "", "", 400, "", "unknown query"},
		{"GET", "/v1/entries/dummy", "", "", 200, "", `{"name":"dummy","command":["sleep","4"],"delay_ms":1000`},
		{"GET", "/v1/entries/nope", "", "", 404, "", `no entry \"nope\"`},
		{"GET", "/v1/entries/%22%0a", "", "", 404, "", `no entry \"\\\"\\n\"`},
		{"GET", "/v1/entries/dummy/exits", "", "", 404, "", "no such page"},
		{"DELETE", "/v1/entries/dummy", "", "", 405, "", ""},

		{"POST", "/v1/entries/dummy/scale", `{"count": 5}`, jsonHdr, 202, "scale dummy 5", `{"version":42}`},
		{"POST", "/v1/entries/dummy/scale", `count=5`, form, 202, "scale dummy 5", `{"version":42}`},
		{"POST", "/v1/entries/dummy/scale?wait=1s", `count=5`, form, 200, "scale dummy 5", `{"version":42,"entry":{"name":"dummy"`},
		{"POST", "/v1/entries/dummy/scale?wait=1", `count=5`, form, 400, "", "wait must be"},
		{"POST", "/v1/entries/dummy/scale", `scale=5`, form, 400, "", "count=NUMBER"},
		{"POST", "/v1/entries/dummy/scale", `{}`, jsonHdr, 400, "", "count is missing"},
		{"POST", "/v1/entries/dummy/scale", ``, jsonHdr, 400, "", "not one JSON object"},
		{"POST", "/v1/entries/dummy/scale", ``, "", 400, "", "no body"},
		{"POST", "/v1/entries/dummy/scale", `null`, jsonHdr, 400, "", "not one JSON object"},
		{"POST", "/v1/entries/dummy/scale", `[5]`, jsonHdr, 400, "", "not one JSON object"},
		{"POST", "/v1/entries/dummy/scale", `{"count": "5"}`, jsonHdr, 400, "", "count must be"},
		{"POST", "/v1/entries/dummy/scale", `{"count": 5.0}`, jsonHdr, 400, "", "count must be"},
		{"POST", "/v1/entries/dummy/scale", `{"count": 1e2}`, jsonHdr, 400, "", "count must be"},
		{"POST", "/v1/entries/dummy/scale", `{"count": -0}`, jsonHdr, 400, "", "count must be"},
		{"POST", "/v1/entries/dummy/scale", `{"count": 017}`, jsonHdr, 400, "", "not one JSON object"},
		{"POST", "/v1/entries/dummy/scale", `{"count": null}`, jsonHdr, 400, "", "count must be"},
		{"POST", "/v1/entries/dummy/scale", `{"Count": 5}`, jsonHdr, 400, "", `unknown field \"Count\"`},
		{"POST", "/v1/entries/dummy/scale", `{"count": 5, "count": 6}`, jsonHdr, 400, "", "given twice"},
		{"POST", "/v1/entries/dummy/scale", `{"count": 5} {}`, jsonHdr, 400, "", "after the JSON object"},
		{"POST", "/v1/entries/dummy/scale", `{"count": 5`, jsonHdr, 400, "", "not one JSON object"},
		{"POST", "/v1/entries/dummy/scale", strings.Repeat("[", maxBody), jsonHdr, 400, "", ""},
		{"POST", "/v1/entries/dummy/scale", strings.Repeat(" ", maxBody+1), jsonHdr, 413, "", "16384 bytes"},

		{"POST", "/v1/entries/dummy/start", ``, "", 202, "start dummy -1", `{"version":42}`},
		{"POST", "/v1/entries/dummy/start", `{}`, jsonHdr, 202, "start dummy -1", ""},
		{"POST", "/v1/entries/dummy/start", `{"slot": 2}`, jsonHdr, 202, "start dummy 2", ""},
		{"POST", "/v1/entries/dummy/start", `{"slot": -1}`, jsonHdr, 400, "", "slot must be"},
		{"POST", "/v1/entries/dummy/start", `{"slot": 10000}`, jsonHdr, 400, "", "from 0 to 9999"},
		{"POST", "/v1/entries/dummy/start", `{"slot": 2}`, form, 415, "", ""},
		{"POST", "/v1/entries/dummy/start", `{"batch": 2}`, jsonHdr, 400, "", "unknown field"},
		{"POST", "/v1/entries/dummy/stop", `{"slot": 0}`, jsonHdr, 202, "stop dummy 0", ""},
		{"POST", "/v1/entries/dummy/stop?wait=10ms&x=1", ``, "", 400, "", "unknown query"},
		{"POST", "/v1/entries/dummy/restart", ``, "", 202, "restart dummy -1 batch 1", ""},
		{"POST", "/v1/entries/dummy/restart", `{"all_at_once": false, "batch": 3}`, jsonHdr, 202, "restart dummy -1 batch 3", ""},
		{"POST", "/v1/entries/dummy/restart", `{"all_at_once": true, "slot": 1}`, jsonHdr, 202, "restart dummy 1 batch 0", ""},
		{"POST", "/v1/entries/dummy/restart", `{"all_at_once": true, "batch": 3}`, jsonHdr, 400, "", "exclude each other"},
		{"POST", "/v1/entries/dummy/restart", `{"all_at_once": 1}`, jsonHdr, 400, "", "true or false"},
		{"POST", "/v1/entries/dummy/restart", `{"batch": 0}`, jsonHdr, 400, "", "batch must be"},
		{"POST", "/v1/entries/dummy/signal", `{"signal": "HUP"}`, jsonHdr, 202, "signal dummy -1 1", ""},
		{"POST", "/v1/entries/dummy/signal", `{"signal": "SIGRTMIN+3", "slot": 7}`, jsonHdr, 202, "signal dummy 7 37", ""},
		{"POST", "/v1/entries/dummy/signal", ``, "", 400, "", "signal is missing"},
		{"POST", "/v1/entries/dummy/signal", `{"signal": 9}`, jsonHdr, 400, "", "signal must be a name"},
		{"POST", "/v1/entries/dummy/signal", `{"signal": "9"}`, jsonHdr, 400, "", "not the name of a signal"},
		{"POST", "/v1/entries/dummy/signal", `{"signal": "0"}`, jsonHdr, 400, "", "not the name of a signal"},
		{"POST", "/v1/entries/dummy/dance", ``, "", 404, "", "no such page"},
		{"GET", "/v1/entries/dummy/stop", ``, "", 405, "", ""},

		{"POST", "/v1/reload", ``, "", 202, "reload", `"action":"restart"`},
		{"POST", "/v1/reload", `{"x": 1}`, jsonHdr, 400, "", "unknown field"},
		{"GET", "/v1/reload", ``, "", 405, "", ""},
		{"GET", "/v1/diff", ``, "", 200, "diff", `"changed":false`},
		{"POST", "/v1/stop", ``, "", 202, "shutdown keep=false", `{"version":42}`},
		{"POST", "/v1/stop?keep", ``, "", 202, "shutdown keep=true", `{"version":42}`},
		{"POST", "/v1/stop?keep=false", ``, "", 202, "shutdown keep=false", `{"version":42}`},
		{"POST", "/v1/stop?keep=yes", ``, "", 400, "", "keep must be"},
		{"POST", "/v1/stop?kepp", ``, "", 400, "", "unknown query"},
		{"GET", "/-/healthy", ``, "", 200, "", "healthy"},
		{"GET", "/-/ready", ``, "", 200, "", "ready"},
		{"POST", "/-/reload", ``, "", 200, "reload", ""},
		{"GET", "/-/reload", ``, "", 405, "", ""},
		{"GET", "/metrics", ``, "", 200, "", "up 1"},
		{"POST", "/metrics", ``, "", 405, "", ""},
		{"GET", "/", ``, "", 404, "", "no such page"},
		{"POST", "/v1/entries/../stop", ``, "", 404, "", "no such page"},
		{"POST", "/v1/entries//stop", ``, "", 404, "", "no such page"},
		{"POST", "/v1/entries/%2e%2e/stop", ``, "", 202, "stop .. -1", ""}, // the supervisor knows no such entry
		{"GET", "//v1/state", ``, "", 404, "", "no such page"},
		{"GET", "/v1/state/", ``, "", 404, "", "no such page"},
		{"GET", "/v2/state", ``, "", 404, "", "no such page"},
		{"OPTIONS", "/v1/state", ``, "", 405, "", ""},
	} {
		for _, network := range []string{"unix", "tcp"} {
			c := h.over(t, network)
			headers := []string{}
			if tt.header != "" {
				headers = append(headers, tt.header)
			}
			got := request(t, c, tt.method, tt.path, tt.body, headers...)
			name := network + " " + tt.method + " " + tt.path + " " + tt.body[:min(40, len(tt.body))]
			if got.status != tt.status {
				t.Errorf("%s: status %d, want %d: %s", name, got.status, tt.status, got.body)
			}
			if call := h.take(); call != tt.call {
				t.Errorf("%s: supervisor got %q, want %q", name, call, tt.call)
			}
			if tt.method != "HEAD" && !strings.Contains(got.body, tt.answer) {
				t.Errorf("%s: body %q lacks %q", name, got.body, tt.answer)
			}
			checkShape(t, name, got)
			c.CloseIdleConnections()
		}
	}
}

// checkShape holds what is true of every answer.
func checkShape(t *testing.T, name string, got gotten) {
	t.Helper()
	if v := got.header.Get("Cache-Control"); v != "no-store" {
		t.Errorf("%s: Cache-Control %q", name, v)
	}
	if got.status < 400 {
		return
	}
	if v := got.header.Get("Content-Type"); v != "application/problem+json" {
		t.Errorf("%s: Content-Type %q", name, v)
	}
	var p Problem
	if err := json.Unmarshal([]byte(got.body), &p); err != nil || p.Status != got.status || p.Type != "about:blank" ||
		p.Title != http.StatusText(got.status) || p.Detail == "" {
		t.Errorf("%s: problem %+v, %v", name, p, err)
	}
	if allow := got.header.Get("Allow"); (got.status == 405) != (allow != "") {
		t.Errorf("%s: status %d with Allow %q", name, got.status, allow)
	}
}

func TestAllow(t *testing.T) {
	h := newHouse(t, asUser(0))
	for path, want := range map[string]string{"/v1/state": "GET, HEAD", "/v1/reload": "POST", "/metrics": "GET, HEAD"} {
		if got := request(t, h.over(t, "unix"), "PUT", path, "").header.Get("Allow"); got != want {
			t.Errorf("%s: Allow %q, want %q", path, got, want)
		}
	}
}

func TestErrorsOfTheSupervisor(t *testing.T) {
	h := newHouse(t, asUser(0))
	for _, tt := range []struct {
		err    error
		status int
		detail string
	}{
		{view.Errorf(view.NotFound, "no entry %q", "x"), 404, `no entry "x"`},
		{view.Errorf(view.Invalid, "out of range"), 400, "out of range"},
		{view.Errorf(view.Conflict, "nothing runs"), 409, "nothing runs"},
		{view.Errorf(view.Unavailable, "stopping"), 503, "stopping"},
		{view.Errorf(view.BadConfig, "a.yaml:1: x\na.yaml:2: y"), 422, "a.yaml:1: x\na.yaml:2: y"},
		{view.Errorf(99, "odd"), 500, "internal error; see the log"},
		{http.ErrBodyNotAllowed, 500, "internal error; see the log"},
	} {
		h.err = tt.err
		for _, path := range []string{"/v1/entries/x/stop", "/v1/entries/x/stop?wait=1s", "/v1/reload", "/-/reload", "/v1/stop"} {
			got := request(t, h.over(t, "unix"), "POST", path, "")
			var p Problem
			if err := json.Unmarshal([]byte(got.body), &p); err != nil || got.status != tt.status || p.Detail != tt.detail {
				t.Errorf("%s with %v: %d %q", path, tt.err, got.status, p.Detail)
			}
		}
	}
	if !strings.Contains(h.log.String(), http.ErrBodyNotAllowed.Error()) {
		t.Error("the cause of the internal error is not in the log")
	}
}

func TestReady(t *testing.T) {
	h := newHouse(t, asUser(0))
	set := func(change func(*view.Daemon)) {
		h.mu.Lock()
		defer h.mu.Unlock()
		next := *h.state
		change(&next.Daemon)
		h.state = &next
	}
	set(func(d *view.Daemon) { d.Stopping = true })
	if got := request(t, h.over(t, "tcp"), "GET", "/-/ready", ""); got.status != 503 || !strings.Contains(got.body, "stopping") {
		t.Errorf("stopping: %d %s", got.status, got.body)
	}
	set(func(d *view.Daemon) { d.Stopping = false; d.TakingOver = true })
	if got := request(t, h.over(t, "tcp"), "GET", "/-/ready", ""); got.status != 503 || !strings.Contains(got.body, "taking over") {
		t.Errorf("taking over: %d %s", got.status, got.body)
	}
	set(func(d *view.Daemon) { d.TakingOver = false; d.LastReload = view.Reload{} })
	if got := request(t, h.over(t, "tcp"), "GET", "/-/ready", ""); got.status != 503 || !strings.Contains(got.body, "configuration") {
		t.Errorf("no configuration: %d %s", got.status, got.body)
	}
	if got := request(t, h.over(t, "tcp"), "GET", "/-/healthy", ""); got.status != 200 {
		t.Errorf("healthy: %d", got.status)
	}
}

// TestHealthyBeforeThereIsAState: all other requests wait for it.
func TestHealthyBeforeThereIsAState(t *testing.T) {
	h := newHouse(t, asUser(0))
	if err := h.server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	var late struct{ Supervisor } // asked too early it panics
	ready, active := make(chan struct{}), make(chan struct{}, 10)
	s := h.newServer(t, asUser(0), nil)
	s.supervisor, s.supervised = &late, ready
	changed := s.http.ConnState
	s.http.ConnState = func(c net.Conn, state http.ConnState) {
		changed(c, state)
		if state == http.StateActive {
			active <- struct{}{}
		}
	}
	s.Start(h.listeners)
	got := make(chan gotten)
	for _, path := range []string{"/v1/state", "/metrics"} {
		go func() { got <- request(t, h.over(t, "unix"), "GET", path, "") }()
		<-active
	}
	if got := request(t, h.over(t, "tcp"), "GET", "/-/healthy", ""); got.status != 200 {
		t.Errorf("healthy: %d", got.status)
	}
	select {
	case early := <-got:
		t.Errorf("answered before there was a state: %d %s", early.status, early.body)
	default:
	}
	late.Supervisor = h.fakeSupervisor
	close(ready)
	for range 2 {
		if got := <-got; got.status != 200 {
			t.Errorf("once there is: %d %s", got.status, got.body)
		}
	}
}

func TestTypesKeepsToItsLines(t *testing.T) {
	h := newHouse(t, asUser(0))
	h.state.Entries[0].Command = []string{"echo", "x\n9 forged: y\r\x1b[2J"}
	want := "1 dummy: echo x 9 forged: y  [2J  -- 1000ms.\n1 idle: sleep 4  -- 1000ms.\n"
	if got := request(t, h.over(t, "tcp"), "GET", "/types", ""); got.body != want {
		t.Errorf("got %q, want %q", got.body, want)
	}
}

func TestPanicIsAnInternalError(t *testing.T) {
	h := newHouse(t, asUser(0))
	h.after = func() { panic("ouch") }
	if got := request(t, h.over(t, "tcp"), "POST", "/v1/entries/dummy/stop", ""); got.status != 500 || strings.Contains(got.body, "ouch") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if !strings.Contains(h.log.String(), "ouch") || !strings.Contains(h.log.String(), "stack=") {
		t.Error("the panic is not in the log")
	}
}

func TestParseSignal(t *testing.T) {
	for name, want := range map[string]int{
		"HUP": 1, "SIGHUP": 1, "KILL": 9, "SIGTERM": 15, "SIGSTKFLT": 16, "SYS": 31, "RTMIN": 34, "SIGRTMIN+3": 37,
		"SIGRTMAX": 64, "RTMAX-1": 63, "RTMAX-30": 34, "RTMIN+30": 64,
	} {
		if got, err := ParseSignal(name); err != nil || got != want {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "SIG", "hup", "9", "SIGSIGHUP", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMIN+", "RTMIN+01",
		"RTMIN3", "RTMIN+0x3", "RTMIN++3", " HUP", "HUP\n"} {
		if got, err := ParseSignal(name); err == nil {
			t.Errorf("%q: %d", name, got)
		}
	}
}
