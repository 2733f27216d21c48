package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sentryd/sentryd/pkg/view"
)

const (
	eventsType = "text/event-stream"
	linesType  = "application/x-ndjson"
)

// quietTime is how long a stream says nothing before it shows that it is alive,
// so that a proxy or a NAT does not forget it.
const quietTime = 15 * time.Second

// events answers GET /v1/events: what happens from now on, or after the event
// numbered `since`, as Server-Sent Events or as JSON lines. It ends with the
// server, after `timeout`, or when the client has had enough.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	if _, err := readBody(w, r); err != nil {
		s.fail(w, r, err)
		return
	}
	if _, err := s.authorize(r); err != nil {
		s.fail(w, r, err)
		return
	}
	since, timeout, err := s.eventsQuery(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	if timeout >= 0 {
		ctx, cancel = context.WithTimeout(r.Context(), timeout)
	}
	defer cancel()
	defer context.AfterFunc(s.draining, cancel)()
	st := &stream{server: s, w: w, control: http.NewResponseController(w), lines: wantsLines(r)}
	st.run(ctx, since)
}

// eventsQuery reads where to begin and how long to wait: -1 for as long as the
// client does.
func (s *Server) eventsQuery(r *http.Request) (since uint64, timeout time.Duration, err error) {
	q, err := parseQuery(r, "since", "timeout")
	if err != nil {
		return 0, 0, err
	}
	since, given, err := q.number("since")
	if err != nil {
		return 0, 0, err
	}
	if !given {
		// What a browser's EventSource sends when it connects again.
		if id, err := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64); err == nil {
			since = id
		} else {
			since = s.supervisor.LastEvent()
		}
	}
	timeout, err = q.duration("timeout", -1)
	return since, timeout, err
}

// wantsLines reports whether the client asks for JSON lines.
func wantsLines(r *http.Request) bool {
	for _, accept := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(accept, ",") {
			if mt, _, err := mime.ParseMediaType(part); err == nil && mt == linesType {
				return true
			}
		}
	}
	return false
}

// stream is an answer that goes on.
type stream struct {
	server  *Server
	w       http.ResponseWriter
	control *http.ResponseController
	lines   bool // JSON lines, else Server-Sent Events
	buf     bytes.Buffer
}

func (st *stream) run(ctx context.Context, seq uint64) {
	last := uint64(0) // to be sent before the end
	contentType := eventsType
	if st.lines {
		contentType = linesType
	}
	st.w.Header().Set("Content-Type", contentType)
	st.w.WriteHeader(http.StatusOK)
	if st.flush() != nil {
		return
	}
	for ending := false; ; {
		if !ending && ctx.Err() != nil {
			ending, last = true, st.server.supervisor.LastEvent()
		}
		if ending && seq >= last {
			return
		}
		waiting, cancel := context.WithTimeout(ctx, quietTime)
		events, missed := st.server.supervisor.Events(waiting, seq)
		cancel()
		if missed > 0 {
			first := seq + missed
			st.put(view.Event{Seq: first, At: time.Now(), Kind: view.EventMissed, Missed: missed})
			seq = first
		}
		for _, e := range events {
			st.put(e)
			seq = e.Seq
		}
		switch {
		case len(events) > 0 || missed > 0 || ctx.Err() != nil:
		case st.lines:
			st.buf.WriteByte('\n')
		default:
			st.buf.WriteString(": \n\n")
		}
		if st.flush() != nil {
			return
		}
	}
}

// put adds an event to what is sent next.
func (st *stream) put(e view.Event) {
	b, err := json.Marshal(e)
	if err != nil {
		st.server.log.Error("http: cannot encode an event", "seq", e.Seq, "error", err)
		return
	}
	if st.lines {
		st.buf.Write(b)
		st.buf.WriteByte('\n')
		return
	}
	fmt.Fprintf(&st.buf, "id: %d\nevent: %s\ndata: %s\n\n", e.Seq, e.Kind, b)
}

// flush sends what there is. It fails when the client is gone or does not read.
func (st *stream) flush() error {
	st.server.setWriteDeadline(st.w)
	_, err := st.w.Write(st.buf.Bytes())
	st.buf.Reset()
	if err != nil {
		return err
	}
	return st.control.Flush()
}
