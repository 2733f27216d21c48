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
	metrics   http.Handler
	processes *procinfo.Reader
	sup       *supervisor.Supervisor
	started   chan struct{} // closed once sup is there
	release   func()        // what Prepare bound

	mu      sync.Mutex // a re-exec may go on while the daemon ends
	server  *api.Server
	stopped bool
}

// newServing binds the sockets, or takes them over from the former image.
// Nothing is answered before start.
func newServing(d *daemon, cfg *config.Config, dir string, inherited *state.Inherited) (*serving, error) {
	s := &serving{d: d, cfg: cfg, started: make(chan struct{}), processes: procinfo.New()}
	var err error
	log := d.output.Logger()
	if s.permit, err = permitOf(cfg); err != nil {
		if inherited == nil {
			return nil, err
		}
		// Known in the preflight a moment ago. No reason to leave the children alone.
		log.Error("only root and the daemon's user may change anything", "error", err)
	}
	s.listeners = api.NewListeners(log, func() {
		<-s.started // an address may become free while children are taken over
		s.sup.ListenersChanged()
		d.keepListeners()
	})
	for _, name := range names(inherited) {
		rest, ok := strings.CutPrefix(name, listenerPrefix)
		if !ok || strings.HasPrefix(name, supervisor.SocketPrefix) {
			continue
		}
		fd, _ := inherited.Take(name)
		if err := s.listeners.Inherit(rest, fd); err != nil {
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

// permitOf resolves whom a configuration names. A name that nobody has is a
// mistake in the configuration.
func permitOf(cfg *config.Config) (*api.Permit, error) {
	p, err := api.NewPermit(cfg.Control.Users, cfg.Control.Groups)
	if err != nil {
		return nil, usagef("%s: %v", cfg.Path, err)
	}
	return p, nil
}

// start answers from now on.
func (s *serving) start(sup *supervisor.Supervisor) error {
	s.sup = sup
	close(s.started)
	s.metrics = metrics.New(func() *view.State { return sup.Scrape(s.d.output) }, s.processes)
	return s.serve()
}

func (s *serving) serve() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	server, err := api.NewServer(api.Options{
		Supervisor: described{s.sup, s.processes}, Permit: s.permit, Hosts: s.cfg.HTTP.Hosts, Metrics: s.metrics, Log: s.d.output.Logger(),
	})
	if err != nil {
		return err
	}
	s.server = server
	server.Start(s.listeners)
	return nil
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

// Prepare binds what the next configuration listens on besides, and checks
// whom it names.
func (s *serving) Prepare(next *config.Config) error {
	if _, err := permitOf(next); err != nil {
		return err
	}
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
	if err := s.serve(); err != nil {
		s.d.output.Logger().Error("http: cannot serve again", "error", err)
	}
}

// Listeners says which addresses are listened on.
func (s *serving) Listeners() []view.Listener { return s.listeners.State() }
