package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"
	"weak"

	"github.com/sentryd/sentryd/pkg/view"
)

// defaultWait is how long a request with `after` waits that does not say.
const defaultWait = 30 * time.Second

// encoder keeps the JSON of the last state asked for, so that each version is
// encoded once, however many ask. The garbage collector may take it: an idle
// daemon does not hold megabytes for a question that nobody asks.
type encoder struct {
	mu   sync.Mutex // held while encoding, never while sending
	last weak.Pointer[encoded]
}

type encoded struct {
	state *view.State
	json  []byte
}

func (e *encoder) encode(st *view.State) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if last := e.last.Value(); last != nil && last.state == st {
		return last.json, nil
	}
	b, err := json.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	now := &encoded{st, append(b, '\n')}
	e.last = weak.Make(now)
	return now.json, nil
}

// state answers GET /v1/state, at once or with `after` when there is something
// newer.
func (s *Server) state(w http.ResponseWriter, r *http.Request) {
	st, err := s.stateAfter(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	b, err := s.encoder.encode(st)
	s.finish(w, r, &answer{http.StatusOK, jsonType, b}, err)
}

func (s *Server) stateAfter(r *http.Request) (*view.State, error) {
	q, err := parseQuery(r, "after", "timeout")
	if err != nil {
		return nil, err
	}
	after, given, err := q.number("after")
	if err != nil {
		return nil, err
	}
	timeout, err := q.duration("timeout", defaultWait)
	if err != nil {
		return nil, err
	}
	st := s.supervisor.State()
	// Above the present version: the client knows a daemon that is no more.
	if !given || after != st.Version || timeout == 0 {
		return st, nil
	}
	c := connOf(r)
	if !c.pool.beginWait(c) {
		return nil, problemf(http.StatusServiceUnavailable, "too many requests are waiting already")
	}
	defer c.pool.endWait(c)
	ctx, cancel := s.waiting(r, timeout)
	defer cancel()
	return s.supervisor.Wait(ctx, after), nil
}

// waiting returns a context that ends with the request, after a time, or when
// the server is shut down.
func (s *Server) waiting(r *http.Request, timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	stop := context.AfterFunc(s.draining, cancel)
	return ctx, func() { stop(); cancel() }
}

func (s *Server) entries(r *http.Request) (*answer, error) {
	if _, err := parseQuery(r); err != nil {
		return nil, err
	}
	entries := s.supervisor.State().Entries
	if entries == nil {
		entries = []*view.Entry{}
	}
	return reply(http.StatusOK, entries)
}

func (s *Server) entry(r *http.Request) (*answer, error) {
	if _, err := parseQuery(r); err != nil {
		return nil, err
	}
	name := r.PathValue("entry")
	e := s.supervisor.State().Entry(name)
	if e == nil {
		return nil, problemf(http.StatusNotFound, "no entry %q", name)
	}
	return reply(http.StatusOK, e)
}

// types answers GET /types, a line an entry.
func (s *Server) types(*http.Request) (*answer, error) {
	var b strings.Builder
	for _, e := range s.supervisor.State().Entries {
		fmt.Fprintf(&b, "%d %s: %s  -- %dms.\n", e.Count, e.Name, oneLine(strings.Join(e.Command, " ")), e.DelayMS)
	}
	return text(b.String()), nil
}

// oneLine keeps an argument from looking like a line of its own.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}
