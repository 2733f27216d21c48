package main

import (
	"context"
	"fmt"
	"time"
)

// answerTimeout is how long the daemon has for an answer to a command that waits for
// nothing else.
const answerTimeout = 10 * time.Second

// silence says that the daemon has not answered in time.
type silence struct {
	pid   int // 0 if it is not known
	limit time.Duration
}

func (s *silence) Error() string {
	if s.pid == 0 {
		return fmt.Sprintf("the daemon does not answer within %v", s.limit)
	}
	return fmt.Sprintf("the daemon (PID %d) does not answer within %v", s.pid, s.limit)
}

// within bounds what is asked of the daemon: one that is stopped or hangs takes
// connections, and says nothing.
func (c *cli) within(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, &silence{c.peer, limit})
}

// unanswered returns what a request failed with: the silence of a context of within
// if it came to its end.
func unanswered(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// ask makes one request, which has to be answered within a limit.
func ask[T any](ctx context.Context, c *cli, limit time.Duration, request func(context.Context) (T, error)) (T, error) {
	ctx, cancel := c.within(ctx, limit)
	defer cancel()
	answer, err := request(ctx)
	return answer, unanswered(ctx, err)
}
