package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// answer is a whole answer, ready to be sent.
type answer struct {
	status      int
	contentType string
	body        []byte
}

func text(s string) *answer {
	return &answer{http.StatusOK, textType, []byte(s)}
}

func reply(status int, v any) (*answer, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return &answer{status, jsonType, append(body, '\n')}, nil
}

// read answers a request that anyone may make.
type read func(r *http.Request) (*answer, error)

// act answers a request of someone who has the right; body is the whole body.
type act func(r *http.Request, body []byte) (*answer, error)

// methods are what a path does, by method. GET stands for HEAD as well.
type methods map[string]http.Handler

func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if h := m[method]; h != nil {
		h.ServeHTTP(w, r)
		return
	}
	var allow []string
	for method := range m {
		allow = append(allow, method)
		if method == http.MethodGet {
			allow = append(allow, http.MethodHead)
		}
	}
	slices.Sort(allow)
	p := problemf(http.StatusMethodNotAllowed, "%s is not possible here", r.Method)
	p.allow = strings.Join(allow, ", ")
	p.write(w)
}

// healthyPath is the one that needs no state to be answered.
const healthyPath = "/-/healthy"

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, problemf(http.StatusNotFound, "no such page"))
	})
	get := func(f read) methods { return methods{http.MethodGet: s.open(f)} }
	post := func(f act) methods { return methods{http.MethodPost: s.restricted(f)} }

	mux.Handle("/types", get(s.types))
	mux.Handle("/type/{entry}", post(s.scaleType))

	mux.Handle("/v1/state", methods{http.MethodGet: http.HandlerFunc(s.state)})
	mux.Handle("/v1/entries", get(s.entries))
	mux.Handle("/v1/entries/{entry}", get(s.entry))
	mux.Handle("/v1/entries/{entry}/scale", post(s.scale))
	mux.Handle("/v1/entries/{entry}/start", post(s.start))
	mux.Handle("/v1/entries/{entry}/stop", post(s.stop))
	mux.Handle("/v1/entries/{entry}/restart", post(s.restart))
	mux.Handle("/v1/entries/{entry}/signal", post(s.signal))
	mux.Handle("/v1/entries/{entry}/tree", methods{http.MethodGet: s.restricted(s.tree)})
	mux.Handle("/v1/events", methods{http.MethodGet: http.HandlerFunc(s.events)})
	mux.Handle("/v1/reload", post(s.reload))
	mux.Handle("/v1/diff", methods{http.MethodGet: s.restricted(s.diff)})
	mux.Handle("/v1/stop", post(s.stopDaemon))

	mux.Handle(healthyPath, get(s.healthy))
	mux.Handle("/-/ready", get(s.ready))
	mux.Handle("/-/reload", post(s.reloadPrometheus))
	if s.metrics != nil {
		mux.Handle("/metrics", methods{http.MethodGet: s.metrics})
	}
	return mux
}

func (s *Server) open(f read) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, err := f(r)
		s.finish(w, r, a, err)
	})
}

// restricted reads the whole request, then asks whose it is, then acts.
func (s *Server) restricted(f act) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := readBody(w, r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		uid, err := s.authorize(r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		a, err := f(r, body)
		if !safe(r.Method) {
			s.log.Info("http: command", "path", r.URL.Path, "uid", uid, "address", connOf(r).via.name, "done", err == nil)
		}
		s.finish(w, r, a, err)
	})
}

func (s *Server) finish(w http.ResponseWriter, r *http.Request, a *answer, err error) {
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.setWriteDeadline(w) // anew: the request may have been kept waiting
	send(w, a.status, a.contentType, a.body)
}
