package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/logs"
	"github.com/sentryd/sentryd/pkg/sockets"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
	"github.com/sentryd/sentryd/pkg/view"
)

// edge is a fake of everything that the owner loop acts on. Processes live
// until a test or a signal ends them.
type edge struct {
	t     *testing.T
	begin time.Time

	mu       sync.Mutex
	ready    chan struct{}
	queue    []spawn.Event
	procs    map[spawn.Token]*process
	nextPID  int
	paused   bool
	fail     map[string]error // program → why it cannot start
	stubborn bool             // processes ignore all but SIGKILL
	printed  []string
	held     map[logs.Key]bool // whose output is not read
	slow     bool              // starts are not answered, but by answer
	asked    []func()          // what those are answered by
	released int
	fifos    atomic.Uint64             // made by Output.AddFor
	cgroups  Cgroups                   // nil: none
	adopted  []spawn.Child             // in the last re-exec
	dial     func() (Connector, error) // nil: no connector

	preflight error
	execErr   error
	checkErr  error
	saved     *state.Daemon
	files     []state.File
	suspended int
	resumed   int
}

// lives reports whether a process is what a pidfd stands for: in this fake they
// are equal.
func (e *edge) lives(pidfd int) *process {
	for _, p := range e.procs {
		if p.pid == pidfd {
			return p
		}
	}
	return nil
}

type process struct {
	token spawn.Token
	pid   int
	spec  *spawn.Spec
	got   []int
	to    []fsm.Scope // that were signaled, as often as got
	ended bool        // its group lives on

	threads int // not 0: it is a survivor
}

func newEdge(t *testing.T) *edge {
	return &edge{
		t: t, begin: time.Now(), ready: make(chan struct{}, 1), procs: make(map[spawn.Token]*process),
		nextPID: 1000, fail: make(map[string]error), held: make(map[logs.Key]bool), execErr: errors.New("exec format error"),
	}
}

func (e *edge) now() time.Duration { return time.Since(e.begin) + time.Hour }

func (e *edge) emit(ev spawn.Event) {
	ev.At, ev.Wall = e.now(), time.Now().UnixNano()
	e.queue = append(e.queue, ev)
	e.Wake()
}

func (e *edge) Wait(d time.Duration) {
	var over <-chan time.Time
	if d >= 0 {
		over = time.After(d)
	}
	select {
	case <-e.ready:
	case <-over:
	}
}

func (e *edge) Wake() {
	select {
	case e.ready <- struct{}{}:
	default:
	}
}

func (e *edge) Events(dst []spawn.Event) []spawn.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	dst = append(dst, e.queue...)
	e.queue = nil
	return dst
}

func (e *edge) Start(t spawn.Token, s *spawn.Spec) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.paused {
		e.t.Error("a start while spawning is paused")
	}
	if err := e.fail[s.Path]; err != nil {
		e.emit(spawn.Event{Kind: spawn.StartFailed, Token: t, Err: &spawn.StartError{Op: "exec", Path: s.Path, Errno: err.(syscall.Errno)}})
		return
	}
	begin := func() {
		e.nextPID++
		e.procs[t] = &process{token: t, pid: e.nextPID, spec: s}
		e.emit(spawn.Event{Kind: spawn.Started, Token: t, PID: e.nextPID})
	}
	if e.slow {
		e.asked = append(e.asked, begin)
		return
	}
	begin()
}

// answer answers the starts that were not.
func (e *edge) answer() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, begin := range e.asked {
		begin()
	}
	e.slow, e.asked = false, nil
}

func (e *edge) exit(p *process, st spawn.Status) {
	delete(e.procs, p.token)
	e.emit(spawn.Event{Kind: spawn.Exited, Token: p.token, PID: p.pid, Status: st, TreeEmpty: true})
}

func (e *edge) Signal(list []spawn.Signal) (errs []error) {
	for _, s := range list {
		errs = append(errs, e.signal(s.Token, s.Signal, fsm.ScopeMain))
	}
	return errs
}

func (e *edge) signal(t spawn.Token, sig int, to fsm.Scope) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.procs[t]
	if p == nil {
		return syscall.ESRCH
	}
	p.got, p.to = append(p.got, sig), append(p.to, to)
	if p.ended {
		return nil
	}
	if sig == int(syscall.SIGKILL) || sig == int(syscall.SIGTERM) && !e.stubborn {
		e.exit(p, spawn.Status{Known: true, Signal: sig})
	}
	return nil
}

func (e *edge) SignalGroup(t spawn.Token, sig int) error     { return e.signal(t, sig, fsm.ScopeGroup) }
func (e *edge) SignalTree(t spawn.Token, sig int) error      { return e.signal(t, sig, fsm.ScopeTree) }
func (e *edge) Release(spawn.Token)                          { e.released++ }
func (e *edge) SetLimits(spawn.Token, []spawn.Setting) error { return nil }
func (e *edge) RemoveCgroup(string)                          {}
func (e *edge) Look(spawn.Token)                             {}

// Untold has those that a test gave threads.
func (e *edge) Untold() (list []spawn.Token) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for t, p := range e.procs {
		if p.threads > 0 {
			list = append(list, t)
		}
	}
	return list
}

func (e *edge) Threads(t spawn.Token) (n int, at time.Duration, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.procs[t]
	if p == nil {
		return 0, 0, false
	}
	return p.threads, e.now(), true
}

func (e *edge) Adopt(list []spawn.Child) []error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.adopted = list
	errs := make([]error, len(list))
	for i, c := range list {
		p := e.lives(c.PidFD)
		if c.Reaped {
			p = e.lives(c.PID)
		}
		if p == nil || p.pid != c.PID || p.ended != c.Reaped {
			errs[i] = fmt.Errorf("no process %d", c.PID)
			continue
		}
		delete(e.procs, p.token)
		p.token = c.Token
		e.procs[c.Token] = p
	}
	return errs
}

func (e *edge) Pause() []spawn.Token { e.paused = true; return nil }
func (e *edge) Resume()              { e.paused = false }

func (e *edge) Children() (out []spawn.Child) {
	for t, p := range e.procs {
		c := spawn.Child{Token: t, PID: p.pid, PidFD: p.pid, Reaped: p.ended, Place: p.spec.Place}
		if p.ended {
			c.PidFD = -1
		}
		out = append(out, c)
	}
	return out
}

// byPath returns the live processes of a program, oldest first.
func (e *edge) byPath(path string) []*process {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []*process
	for _, p := range e.procs {
		if p.spec.Path == path {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *process) int { return a.pid - b.pid })
	return out
}

// end lets a process end with a code.
func (e *edge) end(p *process, code int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.exit(p, spawn.Status{Known: true, Code: code})
}

// endLeaving lets a process end with a code and leave something of its group.
func (e *edge) endLeaving(p *process, code int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p.ended = true
	e.emit(spawn.Event{Kind: spawn.Exited, Token: p.token, PID: p.pid, Status: spawn.Status{Known: true, Code: code}, Members: []spawn.Member{{PID: 1, Command: "left"}}})
}

// endGroup lets the rest of its group end.
func (e *edge) endGroup(p *process) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.procs, p.token)
	e.emit(spawn.Event{Kind: spawn.TreeEmpty, Token: p.token, PID: p.pid, TreeEmpty: true})
}

// output is the fake of pkg/logs: it keeps the lines.
type output struct{ *edge }

func (o output) print(r logs.Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.held, r.Key)
	if r.Words != nil {
		r.Words(&r)
	}
	if r.Text == "" {
		return
	}
	text, _, _ := strings.Cut(r.Text, " at ")
	if _, how, ok := strings.Cut(r.Text, " with "); ok {
		text += " with " + how
	}
	o.printed = append(o.printed, fmt.Sprintf("%v %s.%d %s", (o.now()-time.Hour).Round(time.Millisecond), r.Key, r.PID, text))
}

func (o output) AddFor(logs.Key, int) (uint64, error) { return o.fifos.Add(1), nil }
func (o output) Path(k logs.Key) string               { return k.String() }
func (o output) Dir() int                             { return 0 }
func (o output) Remove(logs.Key)                      {}
func (o output) Begin(r logs.Record)                  { o.print(r) }
func (o output) End(r logs.Record)                    { o.print(r) }
func (o output) Adopt(logs.Key, int, uint64) error    { return nil }
func (o output) Flush()                               {}
func (o output) Hold(k logs.Key)                      { o.mu.Lock(); o.held[k] = true; o.mu.Unlock() }
func (o output) Forget(string)                        {}
func (o output) Pause() (*logs.Handover, error)       { return &logs.Handover{}, nil }
func (o output) Resume()                              {}

// server is the fake of whoever serves.
type server struct{ *edge }

func (s server) Prepare(*config.Config) error { return nil }
func (s server) Abandon()                     {}
func (s server) Suspend() ([]Socket, error)   { s.suspended++; return []Socket{{"listener:x", 99}}, nil }
func (s server) Resume()                      { s.resumed++ }
func (s server) Listeners() []view.Listener   { return []view.Listener{} }

// image is the fake of pkg/state.
type image struct{ *edge }

func (i image) Binary() string { return "/usr/bin/sentryd" }
func (i image) Preflight(_ context.Context, d *state.Daemon) error {
	if err := CheckState(d); err != nil {
		return err
	}
	return i.preflight
}
func (i image) Check([]state.File) error { return i.checkErr }
func (i image) Exec(d *state.Daemon, files []state.File) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.saved, i.files = d, files
	return i.execErr
}

// bed is a supervisor in a test bed.
type bed struct {
	*edge
	s    *Supervisor
	path string
	done chan Outcome
}

func (e *edge) newWitness() *Witness {
	if e.dial == nil {
		return NewWitness(nil, nil, "none in a test")
	}
	w := NewWitness(nil, e.dial, "")
	w.Connect()
	return w
}

func (e *edge) options(path string) Options {
	load := func() (*config.Config, error) { return config.Load(path, config.Options{RequireOwner: -1}) }
	cfg, err := load()
	if err != nil {
		e.t.Fatal(err)
	}
	return Options{
		Identity: Identity{Name: cfg.Name, PID: 1, Version: "test", StartedAt: time.Now(), Config: cfg.Path},
		Config:   cfg, Load: load, Processes: e, Output: output{e}, Sockets: sockets.NewSet(), Witness: e.newWitness(),
		Cgroups: e.cgroups, Serving: server{e}, Handover: image{e}, Log: slog.New(slog.DiscardHandler),
		Clock: Clock{Now: e.now, Wall: time.Now},
	}
}

// inBubble runs a supervisor of that configuration in a bubble of fake time.
func inBubble(t *testing.T, yaml string, test func(t *testing.T, b *bed)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.yaml")
	synctest.Test(t, func(t *testing.T) {
		b := &bed{edge: newEdge(t), path: path}
		b.write(yaml)
		b.s = New(b.options(path))
		b.run()
		test(t, b)
		b.s.Shutdown(t.Context(), false)
		if got := <-b.done; got != Finished {
			t.Errorf("the daemon ended with outcome %v", got)
		}
		if n := len(b.procs); n > 0 {
			t.Errorf("%d processes left after a shutdown", n)
		}
	})
}

func (b *bed) run() {
	b.paused = false // another image has another pool
	b.done = make(chan Outcome, 1)
	go func() { b.done <- b.s.Run() }()
	synctest.Wait()
}

func (b *bed) write(yaml string) {
	if err := os.WriteFile(b.path, []byte("http: {listen: none}\n"+yaml), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// pass lets fake time go by until everything is quiet again.
func (b *bed) pass(d time.Duration) {
	<-time.After(d) // fake time: it passes when everything waits
	synctest.Wait()
}

func (b *bed) slot(entry string, n int) *view.Process {
	b.t.Helper()
	e := b.s.State().Entry(entry)
	if e == nil || n >= len(e.Processes) {
		b.t.Fatalf("no slot %s:%d", entry, n)
	}
	return e.Processes[n]
}
