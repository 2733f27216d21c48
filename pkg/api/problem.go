package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// Media types of the answers.
const (
	jsonType    = "application/json"
	problemType = "application/problem+json" // RFC 9457
	textType    = "text/plain; charset=utf-8"
)

// problem is an error with the status that a client is to see. Handlers return
// one to refuse a request.
type problem struct {
	status int
	detail string
	allow  string // the methods a path knows, with 405
}

func (p *problem) Error() string { return p.detail }

func problemf(status int, format string, args ...any) *problem {
	return &problem{status: status, detail: fmt.Sprintf(format, args...)}
}

func (p *problem) write(w http.ResponseWriter) {
	body, err := json.Marshal(Problem{
		Type:   "about:blank", // nothing beyond the meaning of the status
		Title:  http.StatusText(p.status),
		Status: p.status,
		Detail: p.detail,
	})
	if err != nil { // a struct of strings and a number
		panic(err)
	}
	if p.allow != "" {
		w.Header().Set("Allow", p.allow)
	}
	send(w, p.status, problemType, append(body, '\n'))
}

// send writes a whole answer.
func send(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	// A client that is gone does not want to know.
	_, _ = w.Write(body)
}
