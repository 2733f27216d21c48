package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/spawn"
)

// signals are those that the daemon is told of. They are asked for first thing
// in main: a re-exec'd image inherits SIGHUP ignored, and any other would end it.
type signals struct {
	hup  chan os.Signal
	ends chan os.Signal // those that end the daemon
	user chan os.Signal
	pipe chan os.Signal

	// Between the goroutine in obey and quiet: idle is received from while the
	// former has no signal in hand, inHand is sent to while it has one.
	idle   chan struct{}
	inHand chan struct{}

	unquiet func() // between quiet and resume: gives Go its handlers back
}

// ending are the signals that end the daemon.
var ending = []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGQUIT}

func newSignals() *signals {
	return &signals{
		hup:    make(chan os.Signal, 1), // one waiting reload stands for any number
		ends:   make(chan os.Signal, 16),
		user:   make(chan os.Signal, 16),
		pipe:   make(chan os.Signal, 1),
		idle:   make(chan struct{}),
		inHand: make(chan struct{}),
	}
}

func notifySignals() *signals {
	s := newSignals()
	signal.Notify(s.hup, unix.SIGHUP)
	s.resume()
	// `sentryd start | head`: a write to standard output fails and is counted,
	// and does not end the daemon. Ignored it would be inherited by children.
	signal.Notify(s.pipe, unix.SIGPIPE)
	return s
}

// reload asks for a reload, as SIGHUP does.
func (s *signals) reload() {
	select {
	case s.hup <- unix.SIGHUP:
	default:
	}
}

// obey calls act with each signal that ends the daemon, one after the other.
func (s *signals) obey(act func(os.Signal)) {
	for {
		select {
		case sig := <-s.ends:
			s.holding(func() { act(sig) })
		case <-s.idle:
		}
	}
}

// holding runs f, and says so to quiet meanwhile.
func (s *signals) holding(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	for {
		select {
		case s.inHand <- struct{}{}:
		case <-done:
			return
		}
	}
}

// quiet gives the signals back to the kernel, and reports whether none that
// ends the daemon had come by then: one that did is to be obeyed, also when obey
// has taken it and waits for the owner, which is about to go. From here to the
// next image's Notify such a signal ends the process at once, as SIGKILL would:
// Go does not start with them blocked. It is the kernel that ends it: Go keeps its handler
// after Stop, and a thread that runs it is ended by execve(2), the signal with it.
func (s *signals) quiet() bool {
	signal.Stop(s.user)
	signal.Stop(s.ends)
	if len(s.ends) > 0 {
		return false
	}
	select {
	case s.idle <- struct{}{}:
	case <-s.inHand:
		return false
	}
	if s.unquiet == nil {
		s.unquiet = spawn.DefaultActions(ending...)
	}
	return true
}

// resume is the inverse of quiet.
func (s *signals) resume() {
	if s.unquiet != nil {
		s.unquiet()
		s.unquiet = nil
	}
	signal.Notify(s.ends, ending...)
	signal.Notify(s.user, unix.SIGUSR1, unix.SIGUSR2)
}
