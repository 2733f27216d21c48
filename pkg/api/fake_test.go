package api

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sentryd/sentryd/pkg/peer"
	"github.com/sentryd/sentryd/pkg/view"
)

// fakeSupervisor records the commands it is given and serves the pictures it
// is handed.
type fakeSupervisor struct {
	mu      sync.Mutex
	state   *view.State
	changed chan struct{} // closed and replaced with each new state
	calls   []string
	err     error
	waiting chan struct{} // told of each Wait that has to wait
	after   func()        // runs once a command is done
	busy    bool          // another reload is under way, until ctx ends
	events  []view.Event  // numbered from 1
}

func newFake() *fakeSupervisor {
	now := time.Date(2012, 4, 10, 18, 17, 51, 123456789, time.UTC)
	return &fakeSupervisor{
		changed: make(chan struct{}), waiting: make(chan struct{}, 1000), after: func() {},
		state: &view.State{
			Version: 42,
			Daemon:  view.Daemon{Name: "sample", PID: 1511, StartedAt: now, LastReload: view.Reload{OK: true, SuccessAt: &now}},
			Entries: []*view.Entry{
				fakeEntry("dummy", view.Running),
				fakeEntry("idle", view.Stopped),
			},
		},
	}
}

func fakeEntry(name, state string) *view.Entry {
	return &view.Entry{
		Name: name, Command: []string{"sleep", "4"}, DelayMS: 1000, Count: 1, State: state,
		Processes: []*view.Process{{State: state}},
	}
}

func (f *fakeSupervisor) State() *view.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

// publish makes a new version in which the entry has that state.
func (f *fakeSupervisor) publish(entry, state string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := &view.State{Version: f.state.Version + 1, Daemon: f.state.Daemon}
	for _, e := range f.state.Entries {
		if e.Name != entry {
			next.Entries = append(next.Entries, e)
		} else if state != "" {
			next.Entries = append(next.Entries, fakeEntry(entry, state))
		}
	}
	f.state = next
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeSupervisor) Wait(ctx context.Context, after uint64) *view.State {
	for {
		f.mu.Lock()
		st, changed := f.state, f.changed
		f.mu.Unlock()
		if st.Version > after || ctx.Err() != nil {
			return st
		}
		f.waiting <- struct{}{}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// happen adds an event.
func (f *fakeSupervisor) happen(kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, view.Event{Seq: uint64(len(f.events)) + 1, Kind: kind, Entry: "dummy"})
	close(f.changed)
	f.changed = make(chan struct{})
}

// Events forgets those with an even number, when they are asked for late.
func (f *fakeSupervisor) Events(ctx context.Context, seq uint64) ([]view.Event, uint64) {
	for {
		f.mu.Lock()
		events, changed := f.events, f.changed
		f.mu.Unlock()
		switch n := uint64(len(events)); {
		case seq+1 < n && seq%2 == 1:
			return events[seq+1:], 1
		case seq < n:
			return events[seq:], 0
		case ctx.Err() != nil:
			return nil, 0
		}
		f.waiting <- struct{}{}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (f *fakeSupervisor) LastEvent() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return uint64(len(f.events))
}

func (f *fakeSupervisor) Tree(entry string) (*view.Tree, error) {
	if f.State().Entry(entry) == nil {
		return nil, view.Errorf(view.NotFound, "no such entry: %s", entry)
	}
	return &view.Tree{Entry: entry, Source: view.FromEvents, Slots: []view.TreeSlot{{Incarnation: 2, Processes: []view.TreeProcess{
		{PID: 1550, Main: true, State: "S", Name: "sleep", Command: []string{"sleep", "4"}},
	}}}}, nil
}

func (f *fakeSupervisor) command(format string, args ...any) (uint64, error) {
	f.mu.Lock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	version, err := f.state.Version, f.err
	f.mu.Unlock()
	f.after()
	if err != nil {
		return 0, err
	}
	return version, nil
}

func (f *fakeSupervisor) Scale(_ context.Context, entry string, count int) (uint64, error) {
	return f.command("scale %s %d", entry, count)
}
func (f *fakeSupervisor) Start(_ context.Context, entry string, slot int) (uint64, error) {
	return f.command("start %s %d", entry, slot)
}
func (f *fakeSupervisor) Stop(_ context.Context, entry string, slot int) (uint64, error) {
	return f.command("stop %s %d", entry, slot)
}
func (f *fakeSupervisor) Restart(_ context.Context, entry string, slot, batch int) (uint64, error) {
	return f.command("restart %s %d batch %d", entry, slot, batch)
}
func (f *fakeSupervisor) Signal(_ context.Context, entry string, slot, signal int) (uint64, error) {
	return f.command("signal %s %d %d", entry, slot, signal)
}
func (f *fakeSupervisor) Reload(ctx context.Context) (*view.Diff, error) {
	if f.busy {
		f.waiting <- struct{}{}
		<-ctx.Done()
		return nil, view.Errorf(view.Unavailable, "another reload is under way")
	}
	_, err := f.command("reload")
	return &view.Diff{Changed: true, Entries: []view.EntryDiff{{Name: "dummy", Action: view.ActionRestart}}}, err
}
func (f *fakeSupervisor) Diff(context.Context) (*view.Diff, error) {
	_, err := f.command("diff")
	return &view.Diff{}, err
}
func (f *fakeSupervisor) Shutdown(_ context.Context, keep bool) (uint64, error) {
	return f.command("shutdown keep=%v", keep)
}

// take returns the commands so far and forgets them.
func (f *fakeSupervisor) take() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := strings.Join(f.calls, "; ")
	f.calls = nil
	return calls
}

// fakeOwner is a TCP client's socket of some user's.
type fakeOwner struct {
	uid uint32
	err error
	ask func()
}

func (o fakeOwner) UID() (uint32, error) {
	if o.ask != nil {
		o.ask()
	}
	return o.uid, o.err
}

// asUser makes every peer that user.
func asUser(uid uint32) peers {
	return peers{
		unix: func(syscall.Conn) (peer.Cred, error) { return peer.Cred{UID: uid, GID: uid}, nil },
		tcp:  func(syscall.Conn) (owner, error) { return fakeOwner{uid: uid}, nil },
	}
}

// house is a server on a control socket and a TCP address of 127.0.0.1.
type house struct {
	*fakeSupervisor
	server    *Server
	listeners *Listeners
	socket    string
	tcp       string // HOST:PORT
	log       *logBuffer
}

func newHouse(t testing.TB, p peers) *house { return newHouseFor(t, p, nil) }

// newHouseFor has a permit of its own.
func newHouseFor(t testing.TB, p peers, permit *Permit) *house {
	t.Helper()
	dir, err := os.MkdirTemp("", "api") // t.TempDir() may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &house{fakeSupervisor: newFake(), socket: filepath.Join(dir, "control.sock"), log: new(logBuffer)}
	h.listeners = NewListeners(h.logger(), nil)
	t.Cleanup(h.listeners.Close)
	if err := h.listeners.Control(h.socket); err != nil {
		t.Fatal(err)
	}
	h.listeners.TCP([]string{"127.0.0.1:0"})
	h.tcp = h.listeners.State()[1].Address
	h.server = h.newServer(t, p, permit)
	h.server.Start(h.listeners)
	return h
}

func (h *house) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (h *house) newServer(t testing.TB, p peers, permit *Permit) *Server {
	t.Helper()
	s := NewServer(Options{
		Supervisor: h.fakeSupervisor, Permit: permit, Hosts: []string{"sentry.example"}, Log: h.logger(),
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "up 1\n") }),
	})
	s.peers = p
	t.Cleanup(func() { s.Shutdown(context.Background()) })
	return s
}

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// gotten is an answer, read to its end.
type gotten struct {
	status int
	header http.Header
	body   string
}

// over returns a client that talks to the control socket or to TCP.
func (h *house) over(t testing.TB, network string) *http.Client {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		if network == "unix" {
			return new(net.Dialer).DialContext(ctx, "unix", h.socket)
		}
		return new(net.Dialer).DialContext(ctx, "tcp", h.tcp)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// request sends one request. Headers are given as "Name: value"; Host is one too.
func request(t testing.TB, c *http.Client, method, path, body string, headers ...string) gotten {
	t.Helper()
	req, err := http.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ":")
		if value = strings.TrimSpace(value); name == "Host" {
			req.Host = value
		} else {
			req.Header.Add(name, value)
		}
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return gotten{resp.StatusCode, resp.Header, string(b)}
}

// answers reads answers from a bare connection.
type answers struct{ r *bufio.Reader }

func newAnswers(c net.Conn) answers { return answers{bufio.NewReader(c)} }

func (a answers) line(t *testing.T) string {
	t.Helper()
	line, err := a.r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(line, "\r\n")
}

func (a answers) read(t *testing.T) gotten {
	t.Helper()
	resp, err := http.ReadResponse(a.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return gotten{resp.StatusCode, resp.Header, string(b)}
}

// raw sends bytes to a TCP address and returns the first answer.
func raw(t *testing.T, address, bytes string) gotten {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, bytes); err != nil {
		t.Fatal(err)
	}
	return newAnswers(c).read(t)
}
