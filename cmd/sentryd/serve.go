package main

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"sync"

	"github.com/sentryd/sentryd/pkg/api"
	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/metrics"
	"github.com/sentryd/sentryd/pkg/procinfo"
	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/supervisor"
	"github.com/sentryd/sentryd/pkg/view"
)

const controlSocket = "control.sock"

// listenerPrefix is before the names of handed-over listening sockets.
const listenerPrefix = state.KindListener + ":"

// serving serves the picture, and lets go of the sockets for a re-exec.
type serving struct {
	d         *daemon
	cfg       *config.Config
	permit    *api.Permit
	listeners *api.Listeners
	processes *procinfo.Reader
	started   chan struct{} // closed once there are these:
	sup       *supervisor.Supervisor
	promised  promised // sup, as the server asks it
	metrics   http.Handler
	release   func() // what Prepare bound

	mu      sync.Mutex // a re-exec may go on while the daemon ends
	server  *api.Server
	stopped bool
}

// promised is a supervisor that there will be.
type promised struct{ api.Supervisor }

// newServing binds the sockets, or takes them over from the former image.
// Nothing is answered before serve, and nothing that needs the supervisor before start.
func newServing(d *daemon, cfg *config.Config, dir string, inherited *state.Inherited) (*serving, error) {
	s := &serving{
		d: d, cfg: cfg, permit: api.NewPermit(cfg.Control.Users, cfg.Control.Groups),
		started: make(chan struct{}), processes: procinfo.New(),
	}
	log := d.output.Logger()
	s.listeners = api.NewListeners(log, func() {
		<-s.started // an address may become free while children are taken over
		s.sup.ListenersChanged()
		d.keepListeners()
	})
	for _, name := range names(inherited, listenerPrefix) {
		if strings.HasPrefix(name, supervisor.SocketPrefix) {
			continue
		}
		fd, ok := inherited.Take(name)
		if !ok {
			continue // which is said, and it is bound anew
		}
		if err := s.listeners.Inherit(strings.TrimPrefix(name, listenerPrefix), fd); err != nil {
			log.Error("a listening socket was not taken over", "error", err)
		}
	}
	for _, address := range cfg.HTTP.Listen {
		if fd, ok := d.takeListener(address); ok {
			if err := s.listeners.Inherit(api.HTTPPrefix+address, fd); err != nil {
				log.Error("a listening socket was not taken over", "error", err)
			}
		}
	}
	if err := s.listeners.Control(filepath.Join(dir, controlSocket)); err != nil {
		return nil, err
	}
	s.listeners.TCP(cfg.HTTP.Listen)
	return s, nil
}

// start has everything answered from now on.
func (s *serving) start(sup *supervisor.Supervisor) {
	s.sup, s.promised.Supervisor = sup, &described{Supervisor: sup, processes: s.processes, output: s.d.output}
	s.metrics = metrics.New(func() *view.State { return sup.Scrape(s.d.output) }, s.processes)
	close(s.started)
}

// serve answers that the daemon is there, and everything else once it is started.
func (s *serving) serve() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	s.server = api.NewServer(api.Options{
		Supervisor: &s.promised, Permit: s.permit, Hosts: s.cfg.HTTP.Hosts, Log: s.d.output.Logger(), Ready: s.started,
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.metrics.ServeHTTP(w, r) }),
	})
	s.server.Start(s.listeners)
}

// stop ends serving for good.
func (s *serving) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.shutdown()
	s.listeners.Close()
}

// shutdown ends the server. mu is held.
func (s *serving) shutdown() {
	if err := s.server.Shutdown(context.Background()); err != nil {
		s.d.output.Logger().Warn("http: not every request was answered", "error", err)
	}
}

// Prepare binds what the next configuration listens on besides.
func (s *serving) Prepare(next *config.Config) error {
	release, err := s.listeners.Reserve(next.HTTP.Listen)
	s.release = release
	return err
}

// Abandon gives up what Prepare bound.
func (s *serving) Abandon() {
	if s.release != nil {
		s.release()
		s.release = nil
	}
}

// Suspend ends serving; the sockets stay bound.
func (s *serving) Suspend() ([]supervisor.Socket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, nil // and the supervisor has ended
	}
	s.shutdown()
	files, err := s.listeners.Files()
	var out []supervisor.Socket
	for _, f := range files {
		out = append(out, supervisor.Socket{Name: listenerPrefix + f.Name, FD: f.FD})
	}
	return out, err
}

// Resume serves again, after a re-exec that failed.
func (s *serving) Resume() {
	s.Abandon()
	s.serve()
}

// Listeners says which addresses are listened on.
func (s *serving) Listeners() []view.Listener { return s.listeners.State() }
