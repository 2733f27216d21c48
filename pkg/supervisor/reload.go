package supervisor

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/view"
)

// Serving is whoever serves the picture over sockets. The supervisor tells it
// of a re-exec.
type Serving interface {
	// Prepare binds the addresses of a new configuration that are not bound
	// yet. It is part of the preflight: an address that cannot be bound is an
	// error and changes nothing.
	Prepare(next *config.Config) error
	// Abandon gives up what Prepare bound.
	Abandon()
	// Suspend finishes the requests in flight, for a second at most, stops
	// serving and returns the sockets, which stay bound, by name.
	Suspend() ([]Socket, error)
	// Resume serves again as before, after a re-exec that failed, and lets go
	// what Prepare bound.
	Resume()
	// Listeners says which addresses are listened on.
	Listeners() []view.Listener
}

// Socket is a descriptor to hand over.
type Socket struct {
	Name string
	FD   int
}

// Diff says what a reload would do now.
func (s *Supervisor) Diff(ctx context.Context) (*view.Diff, error) {
	next, err := s.Load()
	if err != nil {
		return nil, &view.Error{Kind: view.BadConfig, Message: err.Error()}
	}
	return s.diff(next), nil
}

// diff compares with the configuration that this image works by, which does
// not change while it lives.
func (s *Supervisor) diff(next *config.Config) *view.Diff {
	c := config.Compare(s.config, next)
	st := s.picture.load()
	d := &view.Diff{Changed: c.Any(), Daemon: c.Daemon, Entries: []view.EntryDiff{}}
	if d.Daemon == nil {
		d.Daemon = []string{}
	}
	for _, e := range c.Entries {
		out := view.EntryDiff{Name: e.Name, Action: string(e.Action), Keys: e.Keys}
		if out.Keys == nil {
			out.Keys = []string{}
		}
		if e.Old != nil && e.New != nil && e.Old.Count != e.New.Count {
			out.From, out.To = ptr(e.Old.Count), ptr(e.New.Count)
			if now := st.Entry(e.Name); now != nil {
				out.From = ptr(now.Count) // as scaled since
			}
		}
		d.Entries = append(d.Entries, out)
	}
	return d
}

// Reload reads and checks the configuration, tries the new binary on a copy of
// the state and, when all is well, returns what will change and has the daemon
// re-exec itself with it. On an error, which is a *view.Error that says why,
// nothing has changed. Calls wait for each other.
func (s *Supervisor) Reload(ctx context.Context) (*view.Diff, error) {
	select {
	case s.reloading <- struct{}{}:
	case <-s.ended:
		return nil, view.Errorf(view.Unavailable, "the daemon has stopped")
	case <-ctx.Done():
		return nil, view.Errorf(view.Unavailable, "another reload is under way")
	}
	// Whoever asked may have gone; the reload goes on.
	next, diff, err := s.preflight(context.WithoutCancel(ctx))
	if err != nil {
		<-s.reloading
		s.refuseReload(err)
		return nil, err
	}
	go s.reexec(next)
	return diff, nil
}

func (s *Supervisor) preflight(ctx context.Context) (*config.Config, *view.Diff, error) {
	if s.picture.load().Daemon.Stopping {
		return nil, nil, view.Errorf(view.Unavailable, "the daemon is stopping")
	}
	next, err := s.Load()
	if err != nil {
		return nil, nil, &view.Error{Kind: view.BadConfig, Message: err.Error()}
	}
	if err := s.Serving.Prepare(next); err != nil {
		return nil, nil, &view.Error{Kind: view.BadConfig, Message: err.Error()}
	}
	if err := s.reserveSockets(ctx, next); err != nil {
		s.Serving.Abandon()
		return nil, nil, &view.Error{Kind: view.BadConfig, Message: err.Error()}
	}
	saved, err := s.save(ctx, next)
	if err != nil {
		s.abandon()
		return nil, nil, err
	}
	state.Failpoint("preflight")
	if err := s.Handover.Preflight(ctx, saved); err != nil {
		s.abandon()
		s.counts.reexec(resultFailed)
		return nil, nil, &view.Error{Kind: view.BadConfig, Message: fmt.Sprintf("the program cannot go on as %s: %v", s.Handover.Binary(), err)}
	}
	return next, s.diff(next), nil
}

// abandon gives up what the preflight bound.
func (s *Supervisor) abandon() {
	s.Serving.Abandon()
	s.ask(context.Background(), s.release)
}

// refuseReload says why the daemon goes on as it was.
func (s *Supervisor) refuseReload(err error) {
	var refusal *view.Error
	if errors.As(err, &refusal) && refusal.Kind == view.Unavailable {
		return
	}
	s.Log.Error("reload refused, going on as before", "error", err)
	s.ask(context.Background(), func() {
		s.tellDaemon(view.EventReloadRefused, err.Error())
		last := &s.publisher.daemon.LastReload
		*last = view.Reload{At: s.Clock.Wall(), Error: err.Error(), SuccessAt: last.SuccessAt}
		s.significant = true
	})
}

// reexec hands over to the next image. It comes back only when that failed.
func (s *Supervisor) reexec(next *config.Config) {
	defer func() { <-s.reloading }()
	// The preflight has left as much garbage as the hand-over makes, and memory that was
	// used is there sooner than memory that is new.
	runtime.GC()
	serving, failure := s.Serving.Suspend()
	if failure == nil {
		err := s.ask(context.Background(), func() { failure = s.handOver(next, serving) })
		if err != nil {
			return // the daemon has ended meanwhile
		}
	}
	s.Serving.Resume()
	s.ask(context.Background(), s.release)
	s.counts.reexec(resultFailed)
	s.refuseReload(failure)
}

func wall(t *time.Time) int64 {
	if t == nil {
		return 0
	}
	return t.UnixNano()
}
