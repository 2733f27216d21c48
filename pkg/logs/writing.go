package logs

import (
	"fmt"
	"log/slog"

	"golang.org/x/sys/unix"
)

// flush writes what s holds, and says what was lost once writing works again.
func (r *reader) flush(s *sink) {
	if r.absorbing || s.waiting() == 0 {
		return
	}
	before := s.lost
	dropped := s.flush()
	r.o.dropped.Add(dropped)
	switch {
	case dropped > 0:
		if s == r.out {
			why := s.why
			r.o.failing.Store(&why)
		}
		if before == 0 && s == r.out && r.o.diag.aside {
			r.o.logger.Warn("output fails, lines are dropped until it works again", "error", s.why)
		}
	case before > 0:
		if lost, why := s.recovered(); lost > 0 && s == r.out {
			r.o.failing.Store(nil)
			r.say("lines of output", lost, why)
			r.flush(s)
		}
	}
}

// say prints how much was lost, and why.
func (r *reader) say(what string, lines uint64, why error) {
	rec := Record{
		Time:  r.now,
		Text:  fmt.Sprintf("Sentry lost %d %s", lines, what),
		Level: slog.LevelWarn,
		Msg:   "output lost",
		Attrs: []slog.Attr{slog.Uint64("lines", lines), slog.String("what", what)},
	}
	if why != nil {
		rec.Text += ": " + why.Error()
		rec.Attrs = append(rec.Attrs, slog.String("error", why.Error()))
	}
	rec.Text += "."
	r.out.buf = r.format.own(r.out.buf, &rec)
}

// watch has epoll say when a sink that is stuck takes more, and only then: a
// pipe that nobody reads any more would be an event for ever.
func (r *reader) watch() {
	r.watchSink(r.out, outID)
	r.watchSink(r.err, errID)
}

func (r *reader) watchSink(s *sink, id uint64) {
	if s.blocked == s.watched {
		return
	}
	s.watched = s.blocked
	if s.blocked {
		_ = epollAdd(r.o.epfd, s.fd, id, unix.EPOLLOUT)
	} else {
		_ = unix.EpollCtl(r.o.epfd, unix.EPOLL_CTL_DEL, s.fd, nil)
	}
}
