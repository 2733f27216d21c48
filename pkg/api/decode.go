package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	formType = "application/x-www-form-urlencoded"

	// maxBody bounds a request body, in bytes. The largest that means anything
	// has fewer than a hundred.
	maxBody = 16 << 10

	// maxWait bounds how long a request may ask to be kept waiting.
	maxWait = time.Hour
)

// readBody reads the whole body, or refuses it by its length before or while
// reading.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	tooLarge := problemf(http.StatusRequestEntityTooLarge, "a request body has at most %d bytes", maxBody)
	if r.ContentLength > maxBody {
		w.Header().Set("Connection", "close") // rather than read all of it
		return nil, tooLarge
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if me := (*http.MaxBytesError)(nil); errors.As(err, &me) {
		return nil, tooLarge
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, problemf(http.StatusRequestTimeout, "the request body took too long")
	}
	if err != nil {
		return nil, problemf(http.StatusBadRequest, "cannot read the request body: %v", err)
	}
	return b, nil
}

// mediaType returns the type of a body, which has to be one of those allowed. A body
// that is not there has none.
func mediaType(h http.Header, body []byte, allowed ...string) (string, error) {
	if enc := h.Values("Content-Encoding"); len(enc) > 0 {
		return "", problemf(http.StatusUnsupportedMediaType, "an encoded body (Content-Encoding) is not read")
	}
	values := h.Values("Content-Type")
	if len(body) == 0 && len(values) == 0 {
		return "", problemf(http.StatusBadRequest, "there is no body: it must have Content-Type %s", strings.Join(allowed, " or "))
	}
	if len(values) == 1 {
		if mt, _, err := mime.ParseMediaType(values[0]); err == nil && slices.Contains(allowed, mt) {
			return mt, nil
		}
	}
	return "", problemf(http.StatusUnsupportedMediaType, "the body must have Content-Type %s", strings.Join(allowed, " or "))
}

// parseNumber reads a decimal number of at most five digits, with no sign,
// blank or leading zero.
func parseNumber(s string) (int, bool) {
	if len(s) == 0 || len(s) > 5 || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, true
}

// number reads the number called what, from low to high.
func number(what, s string, low, high int) (int, error) {
	n, ok := parseNumber(s)
	if !ok || n < low || n > high {
		return 0, problemf(http.StatusBadRequest,
			"%s must be decimal digits from %d to %d, with no sign, blank or leading zero", what, low, high)
	}
	return n, nil
}

// decodeForm reads a form that consists of exactly one number of that name.
func decodeForm(body []byte, name string) (int, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil || len(form) != 1 || len(form[name]) != 1 {
		return 0, problemf(http.StatusBadRequest, "the form must be %s=NUMBER and nothing else", name)
	}
	return number(name, form[name][0], 0, MaxCount)
}

// fields maps the names of a JSON object to what reads their values.
type fields map[string]func(raw json.RawMessage) error

// decodeObject reads one JSON object and nothing after it. Unlike
// json.Unmarshal it refuses names that are unknown, differ in case or come
// twice.
func decodeObject(body []byte, known fields) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	malformed := func(err error) error {
		return problemf(http.StatusBadRequest, "the body is not one JSON object: %v", err)
	}
	if t, err := dec.Token(); err != nil {
		return malformed(err)
	} else if t != json.Delim('{') {
		return problemf(http.StatusBadRequest, "the body is not one JSON object")
	}
	seen := make(map[string]bool, len(known))
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return malformed(err)
		}
		name, ok := t.(string)
		if !ok {
			return problemf(http.StatusBadRequest, "the body is not one JSON object")
		}
		read := known[name]
		if read == nil {
			return problemf(http.StatusBadRequest, "unknown field %q", name)
		}
		if seen[name] {
			return problemf(http.StatusBadRequest, "field %q is given twice", name)
		}
		seen[name] = true
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return malformed(err)
		}
		if err := read(raw); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return malformed(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return problemf(http.StatusBadRequest, "there is something after the JSON object")
	}
	return nil
}

func numberField(name string, low, high int, to *int) func(json.RawMessage) error {
	return func(raw json.RawMessage) (err error) {
		*to, err = number(name, string(raw), low, high)
		return err
	}
}

func boolField(name string, to *bool) func(json.RawMessage) error {
	return func(raw json.RawMessage) error {
		if s := string(raw); s != "true" && s != "false" {
			return problemf(http.StatusBadRequest, "%s must be true or false", name)
		}
		*to = string(raw) == "true"
		return nil
	}
}

func signalField(to *int) func(json.RawMessage) error {
	return func(raw json.RawMessage) error {
		var name string
		if raw[0] != '"' || json.Unmarshal(raw, &name) != nil {
			return problemf(http.StatusBadRequest, "signal must be a name such as \"HUP\"")
		}
		n, err := ParseSignal(name)
		if err != nil {
			return problemf(http.StatusBadRequest, "signal: %v", err)
		}
		*to = n
		return nil
	}
}

// query is the query of a URL: known names, each at most once.
type query map[string]string

func parseQuery(r *http.Request, known ...string) (query, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, problemf(http.StatusBadRequest, "malformed query: %v", err)
	}
	q := make(query, len(values))
	for name, v := range values {
		if !slices.Contains(known, name) {
			return nil, problemf(http.StatusBadRequest, "unknown query parameter %q", name)
		}
		if len(v) != 1 {
			return nil, problemf(http.StatusBadRequest, "query parameter %q is given twice", name)
		}
		q[name] = v[0]
	}
	return q, nil
}

// number reads a version of the state or the number of an event; absent is
// false.
func (q query) number(name string) (v uint64, given bool, err error) {
	s, given := q[name]
	if !given {
		return 0, false, nil
	}
	v, err = strconv.ParseUint(s, 10, 64)
	if err != nil || strconv.FormatUint(v, 10) != s {
		return 0, true, problemf(http.StatusBadRequest, "%s must be a number in decimal digits", name)
	}
	return v, true, nil
}

// duration reads a duration such as 30s; absent is otherwise.
func (q query) duration(name string, otherwise time.Duration) (time.Duration, error) {
	s, given := q[name]
	if !given {
		return otherwise, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > maxWait {
		return 0, problemf(http.StatusBadRequest, "%s must be a duration from 0s to %s, such as 30s", name, maxWait)
	}
	return d, nil
}

// flag reads a parameter that stands for itself: ?keep, or ?keep=true.
func (q query) flag(name string) (bool, error) {
	s, given := q[name]
	switch {
	case !given || s == "false":
		return false, nil
	case s == "" || s == "true":
		return true, nil
	}
	return false, problemf(http.StatusBadRequest, "%s must be true, false or without a value", name)
}
