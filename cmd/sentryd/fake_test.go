package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sentryd/sentryd/pkg/api"
	"github.com/sentryd/sentryd/pkg/view"
)

// fakeDaemon answers on a real control socket. What a command does to the
// state is up to the test.
type fakeDaemon struct {
	mu      sync.Mutex
	state   *view.State
	changed chan struct{}
	calls   []string
	events  []view.Event // numbered from 1

	endAtRest bool // end once somebody waits for an event

	diff    *view.Diff
	err     error                            // of every command
	command func(d *fakeDaemon, call string) // runs with each command, mu held

	silent chan struct{} // not nil: the state is not told before it is closed

	refusals int    // how many commands to refuse as unavailable
	end      func() // stops answering
	dir      string // SENTRYD_RUNTIME_DIR
}

// newFakeDaemon serves a daemon called web with the given entries.
func newFakeDaemon(t *testing.T, entries ...*view.Entry) *fakeDaemon {
	t.Helper()
	d := &fakeDaemon{changed: make(chan struct{}), dir: t.TempDir()}
	d.state = &view.State{Version: 10, Entries: entries, Daemon: view.Daemon{
		Name: "web", PID: os.Getpid(), Config: "/etc/sentryd/web.yaml", Version: "test",
		StartedAt: time.Now().Add(-3 * time.Hour), ProcConnector: view.ProcConnector{Up: true},
	}}
	if err := os.Mkdir(filepath.Join(d.dir, "web"), 0o711); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	listeners := api.NewListeners(log, func() {})
	if err := listeners.Control(filepath.Join(d.dir, "web", controlSocket)); err != nil {
		t.Fatal(err)
	}
	server := api.NewServer(api.Options{Supervisor: d, Log: log})
	server.Start(listeners)
	d.end = sync.OnceFunc(func() {
		server.Shutdown(context.Background())
		listeners.Close()
	})
	t.Cleanup(d.end)
	t.Setenv("SENTRYD_RUNTIME_DIR", d.dir)
	t.Setenv("SENTRYD_SOCKET", "")
	return d
}

// publish changes a copy of the state; mu is held.
func (d *fakeDaemon) publish(change func(st *view.State)) {
	st := *d.state
	st.Version++
	st.Entries = nil
	for _, e := range d.state.Entries {
		entry := *e
		entry.Processes = nil
		for _, p := range e.Processes {
			slot := *p
			entry.Processes = append(entry.Processes, &slot)
		}
		st.Entries = append(st.Entries, &entry)
	}
	change(&st)
	d.state = &st
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *fakeDaemon) call(format string, args ...any) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	call := fmt.Sprintf(format, args...)
	d.calls = append(d.calls, call)
	if d.err != nil {
		return 0, d.err
	}
	if d.refusals > 0 {
		d.refusals--
		return 0, view.Errorf(view.Unavailable, "busy")
	}
	if d.command != nil {
		d.command(d, call)
	}
	return d.state.Version, nil
}

func (d *fakeDaemon) State() *view.State {
	d.mu.Lock()
	silent := d.silent
	d.mu.Unlock()
	if silent != nil {
		<-silent
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state
}

func (d *fakeDaemon) Wait(ctx context.Context, after uint64) *view.State {
	for {
		d.mu.Lock()
		st, changed := d.state, d.changed
		d.mu.Unlock()
		if st.Version > after {
			return st
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return st
		}
	}
}

func (d *fakeDaemon) Events(ctx context.Context, seq uint64) ([]view.Event, uint64) {
	if seq < uint64(len(d.events)) {
		return d.events[seq:], 0
	}
	if d.endAtRest {
		go d.end()
	}
	<-ctx.Done()
	return nil, 0
}

func (d *fakeDaemon) Tree(entry string) (*view.Tree, error) {
	t := &view.Tree{Entry: entry, Source: view.FromEvents, Slots: []view.TreeSlot{}}
	for _, p := range d.State().Entry(entry).Processes {
		if p.PID != 0 {
			t.Slots = append(t.Slots, view.TreeSlot{Slot: p.Slot, Incarnation: p.Incarnation, Processes: []view.TreeProcess{
				{PID: p.PID, Main: true, State: "S", StartedAt: time.Now().Add(-90 * time.Second), Command: []string{"nginx: master", "process"}},
				{PID: p.PID + 1, Parent: p.PID, Depth: 1, State: "Z", StartedAt: time.Now(), Name: "ng\x1b[m\nx"},
			}})
		}
	}
	return t, nil
}

func (d *fakeDaemon) LastEvent() uint64 { return uint64(len(d.events)) }

func (d *fakeDaemon) Scale(_ context.Context, entry string, count int) (uint64, error) {
	return d.call("scale %s %d", entry, count)
}

func (d *fakeDaemon) Start(_ context.Context, entry string, slot int) (uint64, error) {
	return d.call("start %s %d", entry, slot)
}

func (d *fakeDaemon) Stop(_ context.Context, entry string, slot int) (uint64, error) {
	return d.call("stop %s %d", entry, slot)
}

func (d *fakeDaemon) Restart(_ context.Context, entry string, slot, batch int) (uint64, error) {
	return d.call("restart %s %d %d", entry, slot, batch)
}

func (d *fakeDaemon) Signal(_ context.Context, entry string, slot, signal int) (uint64, error) {
	return d.call("signal %s %d %d", entry, slot, signal)
}

func (d *fakeDaemon) Reload(context.Context) (*view.Diff, error) {
	_, err := d.call("reload")
	return d.diff, err
}

func (d *fakeDaemon) Diff(context.Context) (*view.Diff, error) {
	_, err := d.call("diff")
	return d.diff, err
}

func (d *fakeDaemon) Shutdown(_ context.Context, keep bool) (uint64, error) {
	return d.call("shutdown %t", keep)
}

// entry makes an entry whose slots are in the given states.
func entry(name string, states ...string) *view.Entry {
	e := &view.Entry{Name: name, Command: []string{"x"}, Count: len(states)}
	for slot, state := range states {
		p := &view.Process{Slot: slot, State: state, Incarnation: 3}
		if state == view.Running {
			started := time.Now().Add(-90 * time.Second)
			p.PID, p.Ready, p.StartedAt = 1000+slot, true, &started
		}
		e.Processes = append(e.Processes, p)
	}
	return e
}

// sentryd runs a command line against the fake daemon.
func sentryd(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	c := &cli{stdout: &out, stderr: &errs, version: "test"}
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		args = append([]string{args[0], "-c", "web"}, args[1:]...)
	}
	code = c.run(args)
	return code, out.String(), errs.String()
}
