package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// signals are those that the daemon is told of. They are asked for first thing
// in main: a re-exec'd image inherits SIGHUP ignored, and any other would end
// it.
type signals struct {
	hup    chan os.Signal
	others chan os.Signal
	pipe   chan os.Signal
}

func notifySignals() *signals {
	s := &signals{
		hup:    make(chan os.Signal, 1), // one waiting reload stands for any number
		others: make(chan os.Signal, 16),
		pipe:   make(chan os.Signal, 1),
	}
	signal.Notify(s.hup, unix.SIGHUP)
	signal.Notify(s.others, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
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

// quiet gives the signals that end a daemon back to the kernel, and reports
// whether none had come by then. From here to the next image's Notify such a
// signal ends the process at once; one that came before is to be obeyed.
func (s *signals) quiet() bool {
	signal.Stop(s.others)
	return len(s.others) == 0
}

// resume is the inverse of quiet.
func (s *signals) resume() {
	signal.Notify(s.others, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
}
