package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sentryd/sentryd/pkg/view"
)

// Supervisor is what the server needs of the daemon. Every method may be called
// from any goroutine. Commands return the version of the state in which they
// took effect; their errors are *view.Error where the caller is to blame or can
// do something about it.
type Supervisor interface {
	// State returns the present picture, never nil.
	State() *view.State
	// Wait returns the first picture whose version is above after, or the
	// present one when ctx ends.
	Wait(ctx context.Context, after uint64) *view.State
	// Events returns the next events after the one numbered seq, and before them
	// how many there were that are not kept any more. It waits for one until ctx
	// ends. LastEvent is the number of the last one.
	Events(ctx context.Context, seq uint64) (events []view.Event, missed uint64)
	LastEvent() uint64
	// Tree returns the living processes of an entry.
	Tree(entry string) (*view.Tree, error)

	Scale(ctx context.Context, entry string, count int) (version uint64, err error)
	// Start, Stop, Restart and Signal act on one slot, or on AllSlots.
	Start(ctx context.Context, entry string, slot int) (version uint64, err error)
	Stop(ctx context.Context, entry string, slot int) (version uint64, err error)
	// Restart restarts batch slots at a time, or all at once when that is 0.
	Restart(ctx context.Context, entry string, slot, batch int) (version uint64, err error)
	Signal(ctx context.Context, entry string, slot, signal int) (version uint64, err error)

	// Reload returns when the new configuration has been checked; the re-exec
	// follows.
	Reload(ctx context.Context) (*view.Diff, error)
	Diff(ctx context.Context) (*view.Diff, error)
	// Shutdown ends the daemon, and leaves what it runs when keep is set.
	Shutdown(ctx context.Context, keep bool) (version uint64, err error)
}

// Limits of the server.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second // of a whole request
	writeTimeout      = 30 * time.Second // of an answer, once it is there
	idleTimeout       = 60 * time.Second
	maxHeader         = 16 << 10 // bytes; net/http adds 4 KiB

	// maxConns bounds the connections of each listening socket.
	maxConns = 256

	// drainTime is how long Shutdown lets requests in flight go on.
	drainTime = time.Second
	// newGrace is how long it lets a new connection send its request.
	newGrace = 5 * time.Millisecond
)

// Options are what a [Server] is made of. Permit may be nil for none but root
// and the daemon's user; Metrics may be nil for no /metrics.
type Options struct {
	Supervisor Supervisor
	Permit     *Permit
	// Hosts are further Host names, without a port, that a loopback address
	// answers to.
	Hosts   []string
	Metrics http.Handler
	Log     *slog.Logger
	// Ready is closed when there is a state to tell of: until then requests wait, all but
	// GET /-/healthy, and neither Supervisor nor Metrics is asked. Nil: they need not.
	Ready <-chan struct{}
}

// Server answers HTTP/1.1 on the sockets of a [Listeners]. It is started once
// and shut down once; for a failed re-exec another one takes over the sockets.
type Server struct {
	supervisor Supervisor
	permit     *Permit
	hosts      []string
	metrics    http.Handler
	log        *slog.Logger
	supervised <-chan struct{} // closed when supervisor and metrics may be asked; nil: always
	peers      peers

	encoder   encoder
	handler   http.Handler
	http      *http.Server
	draining  context.Context // ends when waiting requests are to be answered
	drain     context.CancelFunc
	accepting sync.WaitGroup

	mu        sync.Mutex
	listeners *Listeners
	gates     []*gate
}

// NewServer returns a server that does not listen yet.
func NewServer(o Options) *Server {
	if o.Permit == nil {
		o.Permit = NewPermit(nil, nil)
	}
	s := &Server{
		supervisor: o.Supervisor, permit: o.Permit, hosts: o.Hosts, metrics: o.Metrics, log: o.Log, supervised: o.Ready, peers: kernelPeers,
	}
	s.draining, s.drain = context.WithCancel(context.Background())
	s.handler = s.routes()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		Protocols:         protocols,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
		ConnContext:       withConn,
		ConnState: func(c net.Conn, state http.ConnState) {
			if c, ok := c.(*conn); ok {
				c.pool.changed(c, state)
			}
		},
	}
	return s
}

// Start accepts connections on the sockets of ls, the ones that are bound later
// included, and returns at once.
func (s *Server) Start(ls *Listeners) {
	s.mu.Lock()
	s.listeners = ls
	s.mu.Unlock()
	ls.attach(s, s.accept)
}

// Shutdown stops accepting, answers requests that wait with the present state,
// closes idle connections, and gives the other requests a second, or less if
// ctx ends. What is then still under way is cut, and said by the error. The
// sockets of the Listeners stay bound: who connects waits for the next server.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	ls := s.listeners
	s.mu.Unlock()
	if ls != nil {
		ls.detach(s)
	}
	s.drain()
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	// http.Server.Shutdown drops, unanswered, requests that it reads from then
	// on. So first accept no more and give what has been accepted a moment.
	s.http.SetKeepAlivesEnabled(false)
	s.mu.Lock()
	gates := s.gates
	s.mu.Unlock()
	for _, g := range gates {
		g.Close()
	}
	s.accepting.Wait()
	grace, cancelGrace := context.WithTimeout(ctx, newGrace)
	defer cancelGrace()
	for _, g := range gates {
		select {
		case <-g.pool.drained():
		case <-grace.Done():
		}
	}
	for _, g := range gates {
		g.pool.closeIdle() // net/http would wait 5 s for those that say nothing
	}
	if err := s.http.Shutdown(ctx); err != nil {
		s.http.Close()
		return fmt.Errorf("requests in flight were cut: %w", err)
	}
	return nil
}

// accept serves a listening socket, which it owns, until Shutdown.
func (s *Server) accept(ln net.Listener) {
	g := &gate{Listener: ln, server: s, door: doorOf(ln.Addr())}
	others := maxConns
	if g.door.control {
		others = maxConns / 2
	}
	g.pool = newPool(maxConns, others)
	s.mu.Lock()
	s.gates = append(s.gates, g)
	s.mu.Unlock()
	s.accepting.Go(func() {
		if err := s.http.Serve(g); s.draining.Err() == nil {
			s.log.Error("http: stopped accepting", "address", g.door.name, "error", err)
		}
	})
}

// gate is a listening socket that knows who is at the other end of each
// connection it accepts, and how many there are.
type gate struct {
	net.Listener
	server *Server
	door   *door
	pool   *pool
}

// Accept returns the next connection that there is room for, a *conn.
func (g *gate) Accept() (net.Conn, error) {
	for {
		nc, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: nc, pool: g.pool, via: g.door}
		c.identify(g.server.peers, g.server.permit)
		if g.pool.admit(c) {
			return c, nil
		}
		nc.Close()
	}
}

// serve is every request's way in: what is refused for the look of it is
// refused here, before any route is chosen.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	defer s.recover(w, r)
	s.setWriteDeadline(w)
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if err := s.admissible(r); err != nil {
		s.fail(w, r, err)
		return
	}
	if r.URL.Path != healthyPath && !s.await(r.Context()) {
		panic(http.ErrAbortHandler) // nobody is there any more
	}
	s.handler.ServeHTTP(w, r)
}

// await waits until there is something to tell of, and reports whether that came
// before the end of ctx.
func (s *Server) await(ctx context.Context) bool {
	if s.supervised == nil {
		return true
	}
	select {
	case <-s.supervised:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Server) admissible(r *http.Request) error {
	if r.RequestURI == "*" || r.Method == http.MethodConnect {
		return problemf(http.StatusBadRequest, "%s %s is not understood", r.Method, r.RequestURI)
	}
	// The router would redirect: `stop` of an entry called ".." to `stop` of the
	// daemon.
	if p := r.URL.EscapedPath(); p != path.Clean(p) {
		return problemf(http.StatusNotFound, "no such page")
	}
	if err := checkHost(connOf(r).via, s.hosts, r.Host); err != nil {
		return err
	}
	return checkOrigin(r)
}

func (s *Server) recover(w http.ResponseWriter, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v) // cuts the connection, as was asked for
	}
	s.log.Error("http: panic", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
	w.Header().Set("Connection", "close")
	problemf(http.StatusInternalServerError, "internal error; see the log").write(w)
}

// setWriteDeadline bounds the time that the client may take to read the answer.
func (s *Server) setWriteDeadline(w http.ResponseWriter) {
	// Fails only on a connection that is gone.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
}

// fail answers with the problem that err is.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	s.setWriteDeadline(w)
	p := asProblem(err)
	if p.status == http.StatusInternalServerError {
		s.log.Error("http: request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	} else {
		// Anyone can cause these, as many as they like.
		s.log.Debug("http: request refused", "method", r.Method, "path", r.URL.Path, "status", p.status, "detail", p.detail)
	}
	p.write(w)
}

// asProblem says what a client is told of an error.
func asProblem(err error) *problem {
	if p := (*problem)(nil); errors.As(err, &p) {
		return p
	}
	if v := (*view.Error)(nil); errors.As(err, &v) {
		switch v.Kind {
		case view.NotFound:
			return problemf(http.StatusNotFound, "%s", v.Message)
		case view.Invalid:
			return problemf(http.StatusBadRequest, "%s", v.Message)
		case view.Conflict:
			return problemf(http.StatusConflict, "%s", v.Message)
		case view.Unavailable:
			return problemf(http.StatusServiceUnavailable, "%s", v.Message)
		case view.BadConfig:
			return problemf(http.StatusUnprocessableEntity, "%s", v.Message)
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return problemf(http.StatusServiceUnavailable, "given up before it was done")
	}
	return problemf(http.StatusInternalServerError, "internal error; see the log")
}
