package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sentryd/sentryd/pkg/api"
	"github.com/sentryd/sentryd/pkg/view"
)

func newTreeCommand(c *cli) *cobra.Command {
	output := ""
	cmd := &cobra.Command{
		Use:   "tree [NAME...]",
		Short: "Show every process of entries",
		Long: `Show every process of entries, or of all entries: the main processes and what
descends from them, however far.

On a terminal it is a tree, a slot after the other, with the pid, the age, the
state (R runs, S sleeps, D waits for a device, T is stopped, Z has ended) and the
command. Otherwise it is one line a process, the pid and the whole command line.`,
		RunE: c.do(func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			client, err := c.connect()
			if err != nil {
				return err
			}
			defer client.Close()
			trees, err := c.trees(cmd.Context(), client, args)
			if err != nil {
				return err
			}
			out := bufio.NewWriter(c.stdout)
			switch {
			case output == "json":
				if err := printJSON(out, trees); err != nil {
					return err
				}
			case isTerminal(c.stdout):
				drawTrees(out, trees, time.Now())
			default:
				listTrees(out, trees)
			}
			return out.Flush()
		}),
		ValidArgsFunction: c.completeNames,
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json: a list of what GET /v1/entries/NAME/tree answers")
	return cmd
}

// trees asks for the trees of what names mean, or of all entries.
func (c *cli) trees(ctx context.Context, client *api.Client, names []string) ([]*view.Tree, error) {
	st, err := ask(ctx, c, c.answerTimeout, client.State)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		names = []string{"*"}
		if len(st.Entries) == 0 {
			return []*view.Tree{}, nil
		}
	}
	targets, err := resolve(st, names)
	if err != nil {
		return nil, err
	}
	trees := []*view.Tree{}
	for _, e := range st.Entries {
		if !slices.ContainsFunc(targets, func(t target) bool { return t.entry == e.Name }) {
			continue
		}
		tree, err := ask(ctx, c, c.answerTimeout, func(ctx context.Context) (*view.Tree, error) { return client.Tree(ctx, e.Name) })
		if err != nil {
			return nil, err
		}
		if !slices.Contains(targets, target{e.Name, api.AllSlots}) {
			tree.Slots = slices.DeleteFunc(tree.Slots, func(s view.TreeSlot) bool {
				return !slices.Contains(targets, target{e.Name, s.Slot})
			})
		}
		trees = append(trees, tree)
	}
	return trees, nil
}

// listTrees writes a line a process, for programs.
func listTrees(w io.Writer, trees []*view.Tree) {
	for _, t := range trees {
		for _, s := range t.Slots {
			for _, p := range s.Processes {
				fmt.Fprintf(w, "%d %s\n", p.PID, commandLine(&p))
			}
		}
	}
}

// drawTrees writes trees, for people.
func drawTrees(w io.Writer, trees []*view.Tree, now time.Time) {
	for _, t := range trees {
		for _, s := range t.Slots {
			fmt.Fprintf(w, "%s:%d\n", t.Entry, s.Slot)
			for _, p := range s.Processes {
				fmt.Fprintf(w, "%8d %7s  %s  %s%s\n", p.PID, brief(now.Sub(p.StartedAt)), p.State, strings.Repeat("  ", p.Depth), commandLine(&p))
			}
		}
	}
}

// commandLine is what a process runs, as one line. One without a command line
// has its name in brackets, as ps(1) writes it.
func commandLine(p *view.TreeProcess) string {
	if len(p.Command) == 0 {
		return "[" + oneLineOf(p.Name) + "]"
	}
	return oneLineOf(strings.Join(p.Command, " "))
}

// oneLineOf keeps text from elsewhere in its line.
func oneLineOf(s string) string { return strings.ReplaceAll(printable(s), "\n", `\x0a`) }
