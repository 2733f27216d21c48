package api

import (
	"cmp"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sentryd/sentryd/pkg/view"
)

// Listeners owns the sockets that servers listen on: the control socket and any
// number of TCP addresses. It outlives servers, and through Files and Inherit
// also the process image. An address that cannot be bound is tried again every
// 5 seconds. Its methods are safe for concurrent use.
type Listeners struct {
	log        *slog.Logger
	changed    func()
	retryEvery time.Duration

	mu        sync.Mutex
	list      []*listener             // the control socket, then TCP as configured
	inherited map[string]net.Listener // by the name of the ListenerFile; not claimed yet
	server    *Server                 // nil while none runs
	accept    func(net.Listener)      // of server
	timer     *time.Timer             // runs retry; nil while all is bound
	closed    bool
}

// listener is one address that is meant to be listened on.
type listener struct {
	name     string // of its ListenerFile
	address  string // as configured, or the path of the control socket
	ln       net.Listener
	err      error // why ln is nil
	reserved bool  // for the next image: bound, not served, not shown
}

// NewListeners returns an empty set. After each change of what State returns
// that no call caused, changed is called from a goroutine of its own; it may be
// nil.
func NewListeners(log *slog.Logger, changed func()) *Listeners {
	if changed == nil {
		changed = func() {}
	}
	return &Listeners{log: log, changed: changed, retryEvery: retryEvery, inherited: make(map[string]net.Listener)}
}

// Control opens the control socket at path, in a directory that only the
// daemon's user may write to. A stale one is replaced; anything else at that
// path is an error, and so is a socket on which somebody listens. Call it
// before TCP.
func (l *Listeners) Control(path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	it := &listener{name: controlPrefix + path, address: path}
	if ln := l.claim(it.name); ln != nil && isOurSocket(path) == nil {
		it.ln = ln
	} else {
		if ln != nil {
			ln.Close() // nobody can find it any more
		}
		if it.ln, it.err = listenUnix(path); it.err != nil {
			return it.err
		}
	}
	l.list = append(l.list, it)
	l.serve(it)
	return nil
}

// TCP makes the addresses, each HOST:PORT, the ones that are listened on.
// Addresses that are bound already stay so, others are bound, or else tried
// again later, and what is not wanted any more is closed, inherited sockets
// included. A server that runs already goes on with the latter until it is shut
// down.
func (l *Listeners) TCP(addresses []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.list
	l.list = slices.Clone(old[:l.controls()])
	for _, address := range addresses {
		name := HTTPPrefix + address
		if slices.ContainsFunc(l.list, func(it *listener) bool { return it.name == name }) {
			continue
		}
		if i := slices.IndexFunc(old, func(it *listener) bool { return it.name == name }); i >= 0 {
			it := old[i]
			if it.reserved {
				it.reserved = false
				l.serve(it)
			}
			l.list = append(l.list, it)
			continue
		}
		it := &listener{name: name, address: address}
		if it.ln = l.claim(name); it.ln == nil {
			it.ln, it.err = net.Listen("tcp", address)
		}
		l.list = append(l.list, it)
		if it.err != nil {
			l.log.Error("http: cannot listen; will try again", "address", address, "error", it.err, "every", l.retryEvery)
			continue
		}
		l.serve(it)
	}
	for _, it := range old {
		if !slices.Contains(l.list, it) && it.ln != nil {
			it.ln.Close()
		}
	}
	for name := range l.inherited {
		l.claim(name).Close()
	}
	l.schedule()
}

// State says of each address whether it is listened on.
func (l *Listeners) State() []view.Listener {
	l.mu.Lock()
	defer l.mu.Unlock()
	state := make([]view.Listener, 0, len(l.list))
	for _, it := range l.list {
		v := view.Listener{Address: it.address}
		switch {
		case it.reserved:
			continue
		case it.ln != nil:
			v.Up, v.Address = true, cmp.Or(it.ln.Addr().String(), it.address)
		default:
			v.Error = it.err.Error()
		}
		state = append(state, v)
	}
	return state
}

// Close closes all sockets and removes the control socket's path.
func (l *Listeners) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	l.schedule()
	for i, it := range l.list {
		if i < l.controls() {
			// While it is bound: once closed, the path may be another's.
			removeSocket(it.address)
		}
		if it.ln != nil {
			it.ln.Close()
		}
	}
	for name := range l.inherited {
		l.claim(name).Close()
	}
	l.list = nil
}

// controls returns how many of the list are control sockets.
func (l *Listeners) controls() int {
	n := slices.IndexFunc(l.list, func(it *listener) bool { return !strings.HasPrefix(it.name, controlPrefix) })
	if n < 0 {
		return len(l.list)
	}
	return n
}

// attach makes s the server of all sockets, present and to come.
func (l *Listeners) attach(s *Server, accept func(net.Listener)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.server, l.accept = s, accept
	for _, it := range l.list {
		l.serve(it)
	}
}

func (l *Listeners) detach(s *Server) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.server == s {
		l.server, l.accept = nil, nil
	}
}

// serve hands a duplicate of a socket to the server, if there is one: closing
// that does not end the socket, nor remove the path of a unix one.
func (l *Listeners) serve(it *listener) {
	if l.accept == nil || it.ln == nil || it.reserved {
		return
	}
	ln, err := duplicate(it.ln)
	if err != nil {
		l.log.Error("http: cannot serve", "address", it.address, "error", err)
		return
	}
	l.accept(ln)
}

func duplicate(ln net.Listener) (net.Listener, error) {
	f, err := ln.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileListener(f)
}
