package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sentryd/sentryd/pkg/api"
	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/view"
)

// command is one request about a target.
type command func(ctx context.Context, client *api.Client, t target) (*api.Result, error)

// each sends a command for each of the names, waits for all of them together
// and prints what became of them.
func (c *cli) each(cmd *cobra.Command, names []string, send command) error {
	client, err := c.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := c.within(cmd.Context(), c.timeout)
	defer cancel()
	st, err := client.State(ctx)
	if err != nil {
		return unanswered(ctx, err)
	}
	targets, err := resolve(st, names)
	if err != nil {
		return err
	}
	return c.send(ctx, client, targets, &effect{before: slotsOf(st)}, send)
}

// send sends a command for each of the targets, and waits for its effect.
func (c *cli) send(ctx context.Context, client *api.Client, targets []target, e *effect, send command) error {
	var failed failures
	for _, t := range targets {
		r, err := send(ctx, client, t)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", t, unanswered(ctx, err)))
			if ctx.Err() != nil {
				break
			}
			continue
		}
		e.targets, e.version = append(e.targets, t), max(e.version, r.Version)
	}
	if !c.noWait && len(e.targets) > 0 {
		st, err := c.settle(ctx, client, e)
		if err != nil {
			failed = append(failed, err)
		} else {
			for _, t := range e.targets {
				fmt.Fprintf(c.stdout, "%s: %s\n", t, summarise(t.slots(st)))
			}
		}
	}
	return failed.orNil()
}

// summarise says how many slots are in which state.
func summarise(slots []*view.Process) string {
	if len(slots) == 0 {
		return "no slots"
	}
	counts := map[string]int{}
	for _, p := range slots {
		counts[p.State]++
	}
	var parts []string
	for _, state := range []string{view.Running, view.Starting, view.Stopping, view.Backoff, view.Exited, view.Failed, view.Stopped} {
		switch n := counts[state]; {
		case n == 0:
		case len(slots) == 1:
			parts = append(parts, state)
		default:
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	return strings.Join(parts, ", ")
}

func newRestartCommand(c *cli) *cobra.Command {
	atOnce := false
	cmd := &cobra.Command{
		Use:   "restart NAME...",
		Short: "Restart entries or slots, one slot at a time",
		Args:  cobra.MinimumNArgs(1),
		RunE: c.do(func(cmd *cobra.Command, args []string) error {
			batch := 1
			if atOnce {
				batch = 0
			}
			return c.each(cmd, args, func(ctx context.Context, client *api.Client, t target) (*api.Result, error) {
				return client.Restart(ctx, t.entry, t.slot, batch, 0)
			})
		}),
		ValidArgsFunction: c.completeNames,
	}
	cmd.Flags().BoolVar(&atOnce, "all-at-once", false, "restart all slots together, not each when the one before is ready")
	c.waits(cmd)
	return cmd
}

// number is how a count is written, here as in HTTP.
var number = regexp.MustCompile(`^(0|[1-9][0-9]{0,4})$`)

func newScaleCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "scale NAME=N...",
		Short: "Change the number of slots of entries",
		Args:  cobra.MinimumNArgs(1),
		RunE: c.do(func(cmd *cobra.Command, args []string) error {
			counts := make([]int, len(args))
			names := make([]string, len(args))
			for i, arg := range args {
				name, text, ok := strings.Cut(arg, "=")
				n, _ := strconv.Atoi(text)
				if !ok || name == "" || !number.MatchString(text) || n > config.MaxCount {
					return usagef("%q: write NAME=N, N from 0 to %d", arg, config.MaxCount)
				}
				if strings.Contains(name, ":") {
					return usagef("%q: an entry is scaled, not a slot", arg)
				}
				counts[i], names[i] = n, name
			}
			client, err := c.connect()
			if err != nil {
				return err
			}
			defer client.Close()
			ctx, cancel := c.within(cmd.Context(), c.timeout)
			defer cancel()
			st, err := client.State(ctx)
			if err != nil {
				return unanswered(ctx, err)
			}
			count := make(map[string]int) // of two for the same entry the last counts
			targets, err := resolve(st, names)
			if err != nil {
				return err
			}
			for i, name := range names {
				matched, err := resolveOne(st, name)
				if err != nil {
					return err
				}
				for _, t := range matched {
					count[t.entry] = counts[i]
				}
			}
			e := &effect{before: slotsOf(st), scales: func(string) bool { return true }}
			return c.send(ctx, client, targets, e, func(ctx context.Context, client *api.Client, t target) (*api.Result, error) {
				return client.Scale(ctx, t.entry, count[t.entry], 0)
			})
		}),
		ValidArgsFunction: c.completeNames,
	}
	c.waits(cmd)
	return cmd
}

func newSignalCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "signal SIG NAME...",
		Short: "Send a signal to the main processes of entries or slots",
		Args:  cobra.MinimumNArgs(2),
		RunE: c.do(func(cmd *cobra.Command, args []string) error {
			sig, err := config.ParseSignal(args[0])
			if err != nil {
				return usagef("%v", err)
			}
			c.noWait, c.timeout = true, c.answerTimeout // it has arrived when the daemon answers
			return c.each(cmd, args[1:], func(ctx context.Context, client *api.Client, t target) (*api.Result, error) {
				return client.Signal(ctx, t.entry, t.slot, sig.String(), 0)
			})
		}),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return []string{"TERM", "HUP", "INT", "QUIT", "USR1", "USR2", "STOP", "CONT", "KILL"}, cobra.ShellCompDirectiveNoFileComp
			}
			return c.completeNames(cmd, args, word)
		},
	}
}

// completeNames offers the running daemon's entries to a shell.
func (c *cli) completeNames(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	client, err := c.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer client.Close()
	st, err := ask(cmd.Context(), c, c.answerTimeout, client.State)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := make([]string, len(st.Entries))
	for i, e := range st.Entries {
		names[i] = e.Name
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
