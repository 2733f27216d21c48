package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sentryd/sentryd/pkg/api"
	"github.com/sentryd/sentryd/pkg/view"
)

func newStatusCommand(c *cli) *cobra.Command {
	output, follow := "", false
	cmd := &cobra.Command{
		Use:   "status [NAME...]",
		Short: "Show the daemon and what it runs",
		Long: `Show the daemon and what it runs, a line a slot.

INC is the incarnation: how often the slot was started, or tried to. NEXT is the
time to its next start.

Exit code: with a NAME 0 if every slot of it runs and is ready, or ended with
code 0 for good; 3 if not; 4 if there is no such entry. Without a NAME 0 unless
something that is wanted is not up, then 3.`,
		RunE: c.do(func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			client, err := c.connect()
			if err != nil {
				return err
			}
			defer client.Close()
			st, err := ask(cmd.Context(), c, c.answerTimeout, client.State)
			if err != nil {
				return err
			}
			if follow {
				return c.followStatus(cmd.Context(), client, st, args, output)
			}
			return c.showStatus(st, args, output)
		}),
		ValidArgsFunction: c.completeNames,
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json: the whole state")
	cmd.Flags().BoolVar(&follow, "watch", false, "show it again with every change, until the daemon ends")
	return cmd
}

func checkOutput(format string) error {
	if format != "" && format != "json" {
		return usagef("--output: %q is not json", format)
	}
	return nil
}

// followStatus shows a state, and every later one until the daemon ends or the user has
// enough.
func (c *cli) followStatus(ctx context.Context, client *api.Client, st *view.State, names []string, output string) error {
	clear := output == "" && isTerminal(c.stdout)
	show := func(st *view.State) (bool, error) {
		if clear {
			fmt.Fprint(c.stdout, "\x1b[H\x1b[2J\x1b[3J")
		}
		return false, c.showStatus(st, names, output)
	}
	if _, err := show(st); err != nil {
		return err
	}
	return c.watch(ctx, client, st.Version+1, show)
}

// showStatus prints a state, or what names pick out of it, and sets the exit
// code.
func (c *cli) showStatus(st *view.State, names []string, output string) error {
	shown := *st
	if len(names) > 0 {
		targets, err := resolve(st, names)
		if err != nil {
			c.complain(err)
			c.code = exitNoEntry
			if code := exitCode(err); code == exitUsage {
				c.code = code
			}
			return nil
		}
		shown.Entries = pick(st, targets)
	}
	c.code = statusCode(&shown, len(names) > 0)
	out := bufio.NewWriter(c.stdout)
	if output == "json" {
		if err := printJSON(out, &shown); err != nil {
			return err
		}
	} else {
		printStatus(out, &shown, time.Now(), useColor(c.stdout))
	}
	return out.Flush()
}

// pick returns the entries that the targets name, with the slots that they
// name.
func pick(st *view.State, targets []target) []*view.Entry {
	var entries []*view.Entry
	for _, e := range st.Entries {
		var slots []*view.Process
		named := false
		for _, p := range e.Processes {
			if slices.Contains(targets, target{e.Name, p.Slot}) || slices.Contains(targets, target{e.Name, api.AllSlots}) {
				slots = append(slots, p)
			}
		}
		named = len(slots) > 0 || slices.Contains(targets, target{e.Name, api.AllSlots})
		if named {
			picked := *e
			picked.Processes = slots
			entries = append(entries, &picked)
		}
	}
	return entries
}

// statusCode is what `status` ends with: asked by name every slot has to be
// up, else every one that is meant to be.
func statusCode(st *view.State, named bool) int {
	for _, e := range st.Entries {
		for _, p := range e.Processes {
			up := p.State == view.Running && p.Ready
			switch p.State {
			case view.Exited:
				up = p.LastExit != nil && p.LastExit.Code != nil && *p.LastExit.Code == 0 || !named && p.Error == ""
			case view.Stopped, view.Stopping:
				up = !named
			}
			if !up {
				return exitNotUp
			}
		}
	}
	return exitDone
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
