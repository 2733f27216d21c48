package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/sentryd/sentryd/pkg/view"
)

// scaleType answers POST /type/NAME, a form scale=N.
func (s *Server) scaleType(r *http.Request, body []byte) (*answer, error) {
	if _, err := parseQuery(r); err != nil {
		return nil, err
	}
	if _, err := mediaType(r.Header, body, formType); err != nil {
		return nil, err
	}
	count, err := decodeForm(body, "scale")
	if err != nil {
		return nil, err
	}
	if _, err := s.supervisor.Scale(r.Context(), r.PathValue("entry"), count); err != nil {
		return nil, err
	}
	return text("Ok."), nil
}

// scale answers POST /v1/entries/NAME/scale, JSON or a form.
func (s *Server) scale(r *http.Request, body []byte) (*answer, error) {
	mt, err := mediaType(r.Header, body, jsonType, formType)
	if err != nil {
		return nil, err
	}
	count := -1
	if mt == formType {
		count, err = decodeForm(body, "count")
	} else {
		err = decodeObject(body, fields{"count": numberField("count", 0, MaxCount, &count)})
	}
	if err != nil {
		return nil, err
	}
	if count < 0 {
		return nil, problemf(http.StatusBadRequest, "count is missing")
	}
	return s.command(r, func(ctx context.Context, entry string) (uint64, error) {
		return s.supervisor.Scale(ctx, entry, count)
	})
}

func (s *Server) start(r *http.Request, body []byte) (*answer, error) {
	slot := AllSlots
	if err := decodeOptional(r, body, fields{"slot": slotNumber(&slot)}); err != nil {
		return nil, err
	}
	return s.command(r, func(ctx context.Context, entry string) (uint64, error) {
		return s.supervisor.Start(ctx, entry, slot)
	})
}

func (s *Server) stop(r *http.Request, body []byte) (*answer, error) {
	slot := AllSlots
	if err := decodeOptional(r, body, fields{"slot": slotNumber(&slot)}); err != nil {
		return nil, err
	}
	return s.command(r, func(ctx context.Context, entry string) (uint64, error) {
		return s.supervisor.Stop(ctx, entry, slot)
	})
}

func (s *Server) restart(r *http.Request, body []byte) (*answer, error) {
	slot, batch, allAtOnce := AllSlots, 0, false
	err := decodeOptional(r, body, fields{
		"slot":        slotNumber(&slot),
		"batch":       numberField("batch", 1, MaxCount, &batch),
		"all_at_once": boolField("all_at_once", &allAtOnce),
	})
	switch {
	case err != nil:
		return nil, err
	case allAtOnce && batch != 0:
		return nil, problemf(http.StatusBadRequest, "all_at_once and batch exclude each other")
	case !allAtOnce && batch == 0:
		batch = 1
	}
	return s.command(r, func(ctx context.Context, entry string) (uint64, error) {
		return s.supervisor.Restart(ctx, entry, slot, batch)
	})
}

func (s *Server) signal(r *http.Request, body []byte) (*answer, error) {
	slot, signal := AllSlots, 0
	if err := decodeOptional(r, body, fields{"slot": slotNumber(&slot), "signal": signalField(&signal)}); err != nil {
		return nil, err
	}
	if signal == 0 {
		return nil, problemf(http.StatusBadRequest, "signal is missing")
	}
	return s.command(r, func(ctx context.Context, entry string) (uint64, error) {
		return s.supervisor.Signal(ctx, entry, slot, signal)
	})
}

func slotNumber(to *int) func(json.RawMessage) error {
	return numberField("slot", 0, MaxCount-1, to)
}

// decodeOptional reads a JSON object, or no body at all.
func decodeOptional(r *http.Request, body []byte, known fields) error {
	if len(body) == 0 {
		return nil
	}
	if _, err := mediaType(r.Header, body, jsonType); err != nil {
		return err
	}
	return decodeObject(body, known)
}

// command runs a command about an entry and, with ?wait, waits until the entry
// has settled.
func (s *Server) command(r *http.Request, run func(ctx context.Context, entry string) (uint64, error)) (*answer, error) {
	q, err := parseQuery(r, "wait")
	if err != nil {
		return nil, err
	}
	wait, err := q.duration("wait", 0)
	if err != nil {
		return nil, err
	}
	entry := r.PathValue("entry")
	version, err := run(r.Context(), entry)
	if err != nil {
		return nil, err
	}
	if wait == 0 {
		return reply(http.StatusAccepted, Result{Version: version})
	}
	e, err := s.settled(r, entry, version, wait)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return reply(http.StatusAccepted, Result{Version: version})
	}
	return reply(http.StatusOK, Result{Version: version, Entry: e})
}

// settled waits for the entry to settle at or after a version, and returns it,
// or nil if the server is shut down meanwhile.
func (s *Server) settled(r *http.Request, name string, version uint64, wait time.Duration) (*view.Entry, error) {
	ctx, cancel := s.waiting(r, wait)
	defer cancel()
	st := s.supervisor.State()
	for {
		if st.Version >= version {
			e := st.Entry(name)
			if e == nil {
				return nil, problemf(http.StatusNotFound, "entry %q was removed meanwhile", name)
			}
			if Settled(e) {
				return e, nil
			}
		}
		if s.draining.Err() != nil {
			return nil, nil
		}
		if ctx.Err() != nil {
			return nil, problemf(http.StatusGatewayTimeout,
				"done in version %d, but the entry has not settled within %s", version, wait)
		}
		st = s.supervisor.Wait(ctx, st.Version)
	}
}

// reload answers POST /v1/reload when the configuration has been checked. 202:
// the re-exec is still to come.
func (s *Server) reload(r *http.Request, body []byte) (*answer, error) {
	return s.diffOf(r, body, http.StatusAccepted, s.startReload)
}

// startReload gives up waiting for another reload when that one goes ahead:
// the server is shut down then, and would wait for this request.
func (s *Server) startReload(ctx context.Context) (*view.Diff, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.draining, cancel)()
	return s.supervisor.Reload(ctx)
}

func (s *Server) diff(r *http.Request, body []byte) (*answer, error) {
	return s.diffOf(r, body, http.StatusOK, s.supervisor.Diff)
}

func (s *Server) diffOf(r *http.Request, body []byte, status int, f func(context.Context) (*view.Diff, error)) (*answer, error) {
	if _, err := parseQuery(r); err != nil {
		return nil, err
	}
	if err := decodeOptional(r, body, nil); err != nil {
		return nil, err
	}
	d, err := f(r.Context())
	if err != nil {
		return nil, err
	}
	return reply(status, d)
}

// reloadPrometheus answers POST /-/reload, which has no body to speak of.
func (s *Server) reloadPrometheus(r *http.Request, _ []byte) (*answer, error) {
	if _, err := s.startReload(r.Context()); err != nil {
		return nil, err
	}
	return text(""), nil
}

// stopDaemon answers POST /v1/stop[?keep].
func (s *Server) stopDaemon(r *http.Request, body []byte) (*answer, error) {
	q, err := parseQuery(r, "keep")
	if err != nil {
		return nil, err
	}
	keep, err := q.flag("keep")
	if err != nil {
		return nil, err
	}
	if err := decodeOptional(r, body, nil); err != nil {
		return nil, err
	}
	version, err := s.supervisor.Shutdown(r.Context(), keep)
	if err != nil {
		return nil, err
	}
	return reply(http.StatusAccepted, Result{Version: version})
}

// healthy says that requests are answered.
func (s *Server) healthy(*http.Request) (*answer, error) {
	return text("sentryd is healthy.\n"), nil
}

// ready says that a configuration is applied, whatever the entries do, and that
// the daemon is not about to end.
func (s *Server) ready(*http.Request) (*answer, error) {
	d := &s.supervisor.State().Daemon
	switch {
	case d.Stopping:
		return nil, problemf(http.StatusServiceUnavailable, "sentryd is stopping")
	case d.TakingOver:
		return nil, problemf(http.StatusServiceUnavailable, "sentryd is taking over the processes of the program that it was before a re-exec")
	case d.LastReload.SuccessAt == nil:
		return nil, problemf(http.StatusServiceUnavailable, "no configuration is applied yet")
	}
	return text("sentryd is ready.\n"), nil
}
