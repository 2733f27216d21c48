package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentryd/sentryd/pkg/view"
)

func TestClient(t *testing.T) {
	h := newHouse(t, asUser(0))
	overTCP, err := NewTCPClient("http://" + h.tcp + "/")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*Client{"unix": NewClient(h.socket), "tcp": overTCP} {
		defer c.Close()
		ctx := t.Context()
		st, err := c.State(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(h.State(), st); d != "" {
			t.Errorf("%s: State: %s", name, d)
		}
		if st, err := c.Wait(ctx, 42, time.Millisecond); err != nil || st.Version != 42 {
			t.Errorf("%s: Wait: %+v, %v", name, st, err)
		}
		if e, err := c.Entry(ctx, "dummy"); err != nil || e.Name != "dummy" {
			t.Errorf("%s: Entry: %+v, %v", name, e, err)
		}
		for _, tt := range []struct {
			run  func() (*Result, error)
			want string
		}{
			{func() (*Result, error) { return c.Scale(ctx, "dummy", 0, 0) }, "scale dummy 0"},
			{func() (*Result, error) { return c.Start(ctx, "dummy", AllSlots, 0) }, "start dummy -1"},
			{func() (*Result, error) { return c.Stop(ctx, "dummy", 0, 0) }, "stop dummy 0"},
			{func() (*Result, error) { return c.Restart(ctx, "dummy", 1, 0, 0) }, "restart dummy 1 batch 0"},
			{func() (*Result, error) { return c.Restart(ctx, "a b/c?", AllSlots, 2, 0) }, "restart a b/c? -1 batch 2"},
			{func() (*Result, error) { return c.Signal(ctx, "dummy", 3, "USR1", 0) }, "signal dummy 3 10"},
		} {
			r, err := tt.run()
			if call := h.take(); err != nil || r.Version != 42 || r.Entry != nil || call != tt.want {
				t.Errorf("%s: %+v, %v, supervisor got %q, want %q", name, r, err, call, tt.want)
			}
		}
		if r, err := c.Start(ctx, "dummy", AllSlots, time.Second); err != nil || r.Entry == nil || r.Entry.Name != "dummy" {
			t.Errorf("%s: Start and wait: %+v, %v", name, r, err)
		}
		if d, err := c.Reload(ctx); err != nil || !d.Changed || len(d.Entries) != 1 {
			t.Errorf("%s: Reload: %+v, %v", name, d, err)
		}
		if d, err := c.Diff(ctx); err != nil || d.Changed {
			t.Errorf("%s: Diff: %+v, %v", name, d, err)
		}
		h.take()
		if v, err := c.Shutdown(ctx, true); err != nil || v != 42 || h.take() != "shutdown keep=true" {
			t.Errorf("%s: Shutdown: %d, %v", name, v, err)
		}
	}
}

func TestClientErrors(t *testing.T) {
	h := newHouse(t, asUser(0))
	c := NewClient(h.socket)
	defer c.Close()
	_, err := c.Entry(t.Context(), "nope")
	var e *Error
	if !errors.As(err, &e) || e.Status != 404 || e.Title != "Not Found" || e.Error() != `no entry "nope"` {
		t.Errorf("got %#v", err)
	}
	h.err = view.Errorf(view.BadConfig, "a.yaml:1: x\na.yaml:2: y")
	if _, err = c.Reload(t.Context()); !errors.As(err, &e) || e.Status != 422 || e.Detail != "a.yaml:1: x\na.yaml:2: y" {
		t.Errorf("got %#v", err)
	}
	if _, err := c.Scale(t.Context(), "dummy", -1, 0); !errors.As(err, &e) || e.Status != 400 {
		t.Errorf("got %#v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.State(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}

	// An answer that is no problem document.
	if e := asError(&http.Response{StatusCode: 431, Header: http.Header{}}, nil); e.Error() != "Request Header Fields Too Large" {
		t.Errorf("got %q", e)
	}
}

func TestClientWithoutDaemon(t *testing.T) {
	dir := socketDir(t)
	stale := filepath.Join(dir, "stale.sock")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	for _, path := range []string{filepath.Join(dir, "absent.sock"), filepath.Join(dir, "no", "directory.sock"), stale} {
		if _, err := NewClient(path).State(t.Context()); !errors.Is(err, ErrNoDaemon) {
			t.Errorf("%s: %v", path, err)
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// connect(2) refuses what is not a socket, too: nobody listens there.
	if _, err := NewClient(file).State(t.Context()); !errors.Is(err, ErrNoDaemon) || errors.Is(err, fs.ErrPermission) {
		t.Errorf("a file: %v", err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp.Close()
	c, err := NewTCPClient("http://" + tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.State(t.Context()); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("tcp: %v", err)
	}
	for _, base := range []string{"127.0.0.1:8001", "https://localhost", "http://", "http://u@localhost", "http://localhost/x", "http://localhost?x", "%"} {
		if _, err := NewTCPClient(base); err == nil {
			t.Errorf("%q is no address of a daemon", base)
		}
	}
}

// A daemon that executes itself anew may cut a request. Reading is tried again;
// a command is not.
func TestClientAsksAgainWhenCut(t *testing.T) {
	path := filepath.Join(socketDir(t), "control.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	requests := make(chan string, 10)
	go func() {
		for n := 0; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 4096)
			k, _ := c.Read(buf)
			requests <- string(buf[:min(k, 4)])
			if n > 0 {
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"version\":7}")
			}
			c.Close()
		}
	}()
	c := NewClient(path)
	defer c.Close()
	st, err := c.State(t.Context())
	if err != nil || st.Version != 7 {
		t.Errorf("%+v, %v", st, err)
	}
	if len(requests) != 2 {
		t.Errorf("%d requests", len(requests))
	}
}
