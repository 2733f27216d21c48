package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/sentryd/sentryd/pkg/view"
)

// History calls f with each event that the daemon still knows whose number is
// above since, in order, and returns; among them may be one of kind
// [view.EventMissed].
func (c *Client) History(ctx context.Context, since uint64, f func(view.Event) error) error {
	return c.stream(ctx, url.Values{"since": {strconv.FormatUint(since, 10)}, "timeout": {"0s"}}, f)
}

// Follow calls f with each event whose number is above since, as they happen,
// until f fails, ctx ends, or nobody listens any more ([ErrNoDaemon]). It goes
// on over a re-exec of the daemon.
func (c *Client) Follow(ctx context.Context, since uint64, f func(view.Event) error) error {
	var refused error
	for {
		err := c.stream(ctx, url.Values{"since": {strconv.FormatUint(since, 10)}}, func(e view.Event) error {
			since = e.Seq
			refused = f(e)
			return refused
		})
		var answer *Error
		switch {
		case refused != nil:
			return refused
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrNoDaemon), errors.As(err, &answer) && answer.Status != http.StatusServiceUnavailable:
			return err
		}
		// Cut, or ended because the daemon executes itself anew.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(reconnectAfter):
		}
	}
}

// reconnectAfter is the pause before a stream that ended is asked for again.
const reconnectAfter = 20 * time.Millisecond

func (c *Client) stream(ctx context.Context, q url.Values, f func(view.Event) error) error {
	resp, err := c.open(ctx, http.MethodGet, "/v1/events?"+q.Encode(), nil, http.Header{"Accept": {linesType}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadBytes('\n')
		switch {
		case err == io.EOF && len(line) == 0:
			return nil
		case err != nil:
			return fmt.Errorf("read the events: %w", err)
		case len(line) == 1:
			continue // it is alive
		}
		var e view.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("decode an event: %w", err)
		}
		if err := f(e); err != nil {
			return err
		}
	}
}
