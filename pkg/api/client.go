package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sentryd/sentryd/pkg/view"
)

// ErrNoDaemon says that nobody listens where the client was told to connect:
// the socket is absent, or refuses.
var ErrNoDaemon = errors.New("no daemon running")

// Error is an error answer of the daemon.
type Error struct {
	Status int    // the HTTP status
	Title  string // what the status means, e.g. "Not Found"
	Detail string // what was wrong, in one line or several; may be empty
}

// Error returns the detail, or the title where there is none.
func (e *Error) Error() string {
	if e.Detail != "" {
		return e.Detail
	}
	return e.Title
}

// maxAnswer bounds what a client reads: the state of 100,000 slots is a tenth
// of it.
const maxAnswer = 512 << 20

// Client talks to a daemon over HTTP. Its methods are safe for concurrent use,
// take as long as their context lets them, and fail with an error that matches
// [ErrNoDaemon] when nobody listens, [fs.ErrPermission] when the socket cannot
// be opened, or an [*Error] when the daemon refuses.
type Client struct {
	base string // without the final slash
	http *http.Client
}

// NewClient returns a client of the control socket at path. It does not
// connect yet.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	// The host is not looked up; it only has to be there.
	return &Client{base: "http://localhost", http: newHTTPClient(dial)}
}

// NewTCPClient returns a client of the daemon at an address such as
// http://127.0.0.1:8001. It does not connect yet. Proxies are not used.
func NewTCPClient(base string) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("address of the daemon: %w", err)
	}
	if u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("address of the daemon: %q is not of the form http://HOST:PORT", base)
	}
	return &Client{base: "http://" + u.Host, http: newHTTPClient(nil)}, nil
}

func newHTTPClient(dial func(context.Context, string, string) (net.Conn, error)) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:        dial,
			IdleConnTimeout:    10 * time.Second,
			DisableCompression: true,
		},
		// The daemon redirects only to clean a path.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Close closes the connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// State returns the present state.
func (c *Client) State(ctx context.Context) (*view.State, error) {
	return get[view.State](ctx, c, "/v1/state")
}

// Wait returns the first state whose version is above after, or the present
// one when there is none within the timeout or the daemon executes itself
// anew. The caller tells by its Version.
func (c *Client) Wait(ctx context.Context, after uint64, timeout time.Duration) (*view.State, error) {
	q := url.Values{"after": {strconv.FormatUint(after, 10)}, "timeout": {timeout.String()}}
	return get[view.State](ctx, c, "/v1/state?"+q.Encode())
}

// Entry returns the present state of one entry.
func (c *Client) Entry(ctx context.Context, name string) (*view.Entry, error) {
	return get[view.Entry](ctx, c, entryPath(name, ""))
}

// Scale sets the number of slots of an entry. This and the other commands
// about entries wait up to wait for the entry to settle, when that is above 0,
// and then fail with an [*Error] of status 504.
func (c *Client) Scale(ctx context.Context, entry string, count int, wait time.Duration) (*Result, error) {
	return c.command(ctx, entry, "scale", scaleRequest{Count: count}, wait)
}

// Start starts a slot of an entry, or [AllSlots].
func (c *Client) Start(ctx context.Context, entry string, slot int, wait time.Duration) (*Result, error) {
	return c.command(ctx, entry, "start", slotRequest{Slot: slotField(slot)}, wait)
}

// Stop stops a slot of an entry, or [AllSlots].
func (c *Client) Stop(ctx context.Context, entry string, slot int, wait time.Duration) (*Result, error) {
	return c.command(ctx, entry, "stop", slotRequest{Slot: slotField(slot)}, wait)
}

// Restart restarts a slot of an entry, or [AllSlots], batch of them at a time;
// 0 means all at once.
func (c *Client) Restart(ctx context.Context, entry string, slot, batch int, wait time.Duration) (*Result, error) {
	req := restartRequest{Slot: slotField(slot), AllAtOnce: batch == 0}
	if batch != 0 {
		req.Batch = &batch
	}
	return c.command(ctx, entry, "restart", req, wait)
}

// Signal sends a signal, by name (see [ParseSignal]), to the main process of a
// slot, or of [AllSlots].
func (c *Client) Signal(ctx context.Context, entry string, slot int, signal string, wait time.Duration) (*Result, error) {
	return c.command(ctx, entry, "signal", signalRequest{Slot: slotField(slot), Signal: signal}, wait)
}

// Reload has the daemon check its configuration and then execute itself anew
// with it, and returns what that changes. It returns once the check passed;
// the new image is up when Daemon.Reexecs has risen. A refused configuration
// is an [*Error] of status 422 whose Detail has a line for each mistake.
func (c *Client) Reload(ctx context.Context) (*view.Diff, error) {
	return do[view.Diff](ctx, c, http.MethodPost, "/v1/reload", nil)
}

// Diff returns what a reload would change.
func (c *Client) Diff(ctx context.Context) (*view.Diff, error) {
	return get[view.Diff](ctx, c, "/v1/diff")
}

// Shutdown ends the daemon, and all it runs unless keep is set. It returns the
// version of the state in which that began; the daemon is gone when
// [ErrNoDaemon] comes back.
func (c *Client) Shutdown(ctx context.Context, keep bool) (version uint64, err error) {
	path := "/v1/stop"
	if keep {
		path += "?keep"
	}
	r, err := do[Result](ctx, c, http.MethodPost, path, nil)
	if err != nil {
		return 0, err
	}
	return r.Version, nil
}

func (c *Client) command(ctx context.Context, entry, verb string, body any, wait time.Duration) (*Result, error) {
	path := entryPath(entry, "/"+verb)
	if wait > 0 {
		path += "?" + url.Values{"wait": {wait.String()}}.Encode()
	}
	return do[Result](ctx, c, http.MethodPost, path, body)
}

func entryPath(name, rest string) string {
	return "/v1/entries/" + url.PathEscape(name) + rest
}

func slotField(slot int) *int {
	if slot == AllSlots {
		return nil
	}
	return &slot
}

// get asks once more when the connection was cut: over a re-exec of the daemon
// a request is answered or cut, never refused, and a GET has no side effect.
func get[T any](ctx context.Context, c *Client, path string) (*T, error) {
	v, err := do[T](ctx, c, http.MethodGet, path, nil)
	if err != nil && ctx.Err() == nil && wasCut(err) {
		return do[T](ctx, c, http.MethodGet, path, nil)
	}
	return v, err
}

// wasCut reports whether a server closed the connection that a request was made by. Where that
// was before anything had been written net/http has no more than words for it.
func wasCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		err != nil && strings.HasSuffix(err.Error(), "http: server closed idle connection")
}

func do[T any](ctx context.Context, c *Client, method, path string, body any) (*T, error) {
	var payload []byte
	header := make(http.Header)
	if body != nil {
		var err error
		if payload, err = json.Marshal(body); err != nil {
			return nil, err
		}
		header.Set("Content-Type", jsonType)
	}
	resp, err := c.open(ctx, method, path, payload, header)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer to %s %s: %w", method, path, err)
	}
	v := new(T)
	if err := json.Unmarshal(answer, v); err != nil {
		return nil, fmt.Errorf("decode the answer to %s %s: %w", method, path, err)
	}
	return v, nil
}

// open sends a request and returns the answer, whose body the caller closes, or
// an *Error for one that says no.
func (c *Client) open(ctx context.Context, method, path string, payload []byte, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	req.Header = header
	resp, err := c.http.Do(req)
	if err != nil {
		// The URL of a *url.Error says nothing to someone who typed a command.
		if ue := (*url.Error)(nil); errors.As(err, &ue) {
			err = ue.Err
		}
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" &&
			(errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)) {
			return nil, fmt.Errorf("%w: %w", ErrNoDaemon, err)
		}
		return nil, err
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer to %s %s: %w", method, path, err)
	}
	return nil, asError(resp, answer)
}

// asError makes an *Error of an answer that says so, problem or not.
func asError(resp *http.Response, answer []byte) *Error {
	e := &Error{Status: resp.StatusCode, Title: http.StatusText(resp.StatusCode)}
	if mt, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); mt == problemType {
		var p Problem
		if json.Unmarshal(answer, &p) == nil {
			e.Title, e.Detail = p.Title, p.Detail
		}
	}
	return e
}
