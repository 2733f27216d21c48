package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/signal"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/api"
	"github.com/sentryd/sentryd/pkg/view"
)

// lastEvents is how many events `events -f` shows before it follows.
const lastEvents = 10

func newEventsCommand(c *cli) *cobra.Command {
	output, follow, all := "", false, false
	cmd := &cobra.Command{
		Use:   "events [NAME...]",
		Short: "Show what has happened to entries, and what happens",
		Long: `Show the events that the daemon remembers, some thousand, a line each; with
--follow the last ten and then each as it happens, over reloads, until the daemon
ends. With names only theirs.

With --all every fork, exec and exit on this host is shown instead, as the
kernel tells of them, until interrupted; no daemon is needed. The columns are
then the time, what happened, the pid, the parent's, and of an exit how long the
process lived and its code or signal ("+" with a core dump), and the command.

Otherwise the columns are the time, the slot or entry ("-" is the daemon), the pid, what
happened, and more about it.`,
		RunE: c.do(func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if all {
				if len(args) > 0 {
					return usagef("--all shows every process, not those of a NAME")
				}
				ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
				defer stop()
				return c.hostEvents(ctx, output)
			}
			client, err := c.connect()
			if err != nil {
				return err
			}
			defer client.Close()
			show := c.showEvent
			if output == "json" {
				show = c.showEventJSON
			}
			return c.events(cmd.Context(), client, args, follow, show)
		}),
		ValidArgsFunction: c.completeNames,
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json: an object a line, as GET /v1/events sends them")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the daemon ends")
	cmd.Flags().BoolVar(&all, "all", false, "every process of this host")
	return cmd
}

// events shows the events about names, of which some may be of entries that are
// no more.
func (c *cli) events(ctx context.Context, client *api.Client, names []string, follow bool, show func(view.Event) error) error {
	wanted, err := eventFilter(names)
	if err != nil {
		return err
	}
	var known []view.Event
	since := uint64(0)
	asking, cancel := c.within(ctx, c.answerTimeout)
	defer cancel()
	err = client.History(asking, 0, func(e view.Event) error {
		since = e.Seq
		if wanted(e) && (e.Kind != view.EventMissed || !follow) {
			known = append(known, e)
		}
		return nil
	})
	if err != nil {
		return unanswered(asking, err)
	}
	if follow {
		known = known[max(0, len(known)-lastEvents):]
	}
	for _, e := range known {
		if err := show(e); err != nil {
			return err
		}
	}
	if !follow {
		return nil
	}
	err = client.Follow(ctx, since, func(e view.Event) error {
		if wanted(e) {
			return show(e)
		}
		return nil
	})
	if errors.Is(err, api.ErrNoDaemon) {
		return nil // it has ended, as everything does
	}
	return err
}

// eventFilter says whether an event is about one of names.
func eventFilter(names []string) (func(view.Event) bool, error) {
	if len(names) == 0 {
		return func(view.Event) bool { return true }, nil
	}
	for _, name := range names {
		if _, err := resolveOne(&view.State{}, name); exitCode(err) == exitUsage {
			return nil, err
		}
	}
	return func(e view.Event) bool {
		if e.Kind == view.EventMissed {
			return true
		}
		// A state that has just what the event is about.
		of := &view.Entry{Name: e.Entry}
		if e.Slot != nil {
			of.Processes = []*view.Process{{Slot: *e.Slot}}
		}
		return slices.ContainsFunc(names, func(name string) bool {
			_, err := resolveOne(&view.State{Entries: []*view.Entry{of}}, name)
			return e.Entry != "" && err == nil
		})
	}, nil
}

func (c *cli) showEventJSON(e view.Event) error {
	return json.NewEncoder(c.stdout).Encode(e)
}

func (c *cli) showEvent(e view.Event) error {
	name, pid := "-", "-"
	if e.Entry != "" {
		name = e.Entry
		if e.Slot != nil {
			name = fmt.Sprintf("%s:%d", e.Entry, *e.Slot)
		}
	}
	if e.PID != 0 {
		pid = fmt.Sprint(e.PID)
	}
	line := fmt.Sprintf("%s  %-16s %7s  %-14s  %s", e.At.Local().Format("15:04:05.000"), name, pid, e.Kind, describeEvent(&e))
	_, err := fmt.Fprintln(c.stdout, strings.TrimRight(line, " "))
	return err
}

// describeEvent says what the kind of an event does not.
func describeEvent(e *view.Event) string {
	var parts []string
	say := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if e.Incarnation != 0 && e.Kind == view.EventStarted {
		say("incarnation %d", e.Incarnation)
	}
	if e.Exit != nil {
		say("%s", describeExit(e.Exit))
	}
	if e.Count != nil {
		say("to %d", *e.Count)
	}
	if e.NextStartAt != nil {
		say("next start in %s", brief(e.NextStartAt.Sub(e.At)))
	}
	if e.Initiator != "" {
		say("by %s", e.Initiator)
	}
	if e.Missed != 0 {
		say("%d events", e.Missed)
	}
	if e.Message != "" {
		say("%s", printable(e.Message))
	}
	return strings.Join(parts, ", ")
}
