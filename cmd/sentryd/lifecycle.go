package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/api"
	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/view"
)

func newStopCommand(c *cli) *cobra.Command {
	keep := false
	cmd := &cobra.Command{
		Use:   "stop [NAME...]",
		Short: "Stop entries or slots; without a name the daemon and all that it runs",
		RunE: c.do(func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return c.stopDaemon(cmd.Context(), keep)
			case keep:
				return usagef("--keep is for the daemon: it goes without a NAME")
			}
			return c.each(cmd, args, func(ctx context.Context, client *api.Client, t target) (*api.Result, error) {
				return client.Stop(ctx, t.entry, t.slot, 0)
			})
		}),
		ValidArgsFunction: c.completeNames,
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "end the daemon and leave its processes running")
	c.waits(cmd)
	return cmd
}

// stopDaemon stops the daemon and waits until its process is gone.
func (c *cli) stopDaemon(ctx context.Context, keep bool) error {
	client, err := c.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := c.within(ctx, c.timeout)
	defer cancel()
	st, err := client.State(ctx)
	if err != nil {
		return unanswered(ctx, err)
	}
	// Opened while it answers, so that it is the daemon and no later process
	// of the same number. It may fail: the pid can be another namespace's.
	pidfd, pidfdErr := unix.PidfdOpen(st.Daemon.PID, 0)
	if pidfdErr == nil {
		defer unix.Close(pidfd)
	}
	version, err := client.Shutdown(ctx, keep)
	if err != nil || c.noWait {
		return unanswered(ctx, err)
	}
	var last *view.State
	err = c.watch(ctx, client, version, func(now *view.State) (bool, error) {
		last = now
		return false, nil
	})
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return c.stillStopping(last)
	case !errors.Is(err, api.ErrNoDaemon):
		return err
	}
	if pidfdErr == nil {
		waitEnd(ctx, pidfd)
	}
	return nil
}

// stillStopping says what a stop of the daemon still waits for at its timeout.
func (c *cli) stillStopping(last *view.State) error {
	if last == nil {
		return c.nothingHeard()
	}
	text := fmt.Sprintf("still stopping after %v", c.timeout)
	if slots := (&effect{targets: everything(last)}).underWay(last); slots != "" {
		text += ": " + slots
	}
	return errors.New(text)
}

// waitEnd waits until the process is dead. It has closed its socket already.
func waitEnd(ctx context.Context, pidfd int) {
	deadline, _ := ctx.Deadline()
	for left := time.Until(deadline); left > 0; left = time.Until(deadline) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

func everything(st *view.State) []target {
	var all []target
	for _, e := range st.Entries {
		all = append(all, target{e.Name, api.AllSlots})
	}
	return all
}

func newReloadCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Check the configuration, then re-exec the daemon with it; its processes stay",
		Args:  cobra.NoArgs,
		RunE:  c.do(func(cmd *cobra.Command, _ []string) error { return c.reload(cmd.Context()) }),
	}
	c.waits(cmd)
	return cmd
}

func (c *cli) reload(ctx context.Context) error {
	client, err := c.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := c.within(ctx, c.timeout)
	defer cancel()
	before, diff, err := c.askReload(ctx, client)
	if err != nil {
		return err
	}
	var amiss error
	if !c.noWait {
		version, err := c.awaitReexec(ctx, client, before)
		if err != nil {
			return err
		}
		amiss = c.awaitChanges(ctx, client, before, diff, version)
	}
	if diff.Changed {
		printDiff(c, diff, false)
	} else {
		fmt.Fprintln(c.stdout, "nothing changed")
	}
	return amiss
}

// askReload has the daemon begin a reload, and returns the state before it. One
// that gave way to another's reload, or was cut by it, is asked for again: that
// other may have read an older configuration.
func (c *cli) askReload(ctx context.Context, client *api.Client) (*view.State, *view.Diff, error) {
	for {
		before, err := client.State(ctx)
		var diff *view.Diff
		if err == nil {
			diff, err = client.Reload(ctx)
		}
		var refused *api.Error
		switch {
		case err == nil, ctx.Err() != nil, errors.Is(err, api.ErrNoDaemon):
			return before, diff, unanswered(ctx, err)
		case errors.As(err, &refused):
			if refused.Status != http.StatusServiceUnavailable || before == nil || before.Daemon.Stopping {
				return nil, nil, err
			}
		}
		select {
		case <-ctx.Done():
			if refused == nil {
				err = unanswered(ctx, err)
			}
			return nil, nil, err
		case <-time.After(retryAfter):
		}
	}
}

// awaitReexec waits for the new image, and returns the version in which it is there.
func (c *cli) awaitReexec(ctx context.Context, client *api.Client, before *view.State) (uint64, error) {
	var now *view.State
	err := c.watch(ctx, client, before.Version, func(st *view.State) (bool, error) {
		now = st
		if r := st.Daemon.LastReload; r.At.After(before.Daemon.LastReload.At) && !r.OK {
			return false, fmt.Errorf("the reload failed, the daemon goes on as before: %s", r.Error)
		}
		return st.Daemon.Reexecs > before.Daemon.Reexecs, nil
	})
	switch {
	case err == nil:
		return now.Version, nil
	case !errors.Is(err, context.DeadlineExceeded):
		return 0, err
	case now == nil:
		return 0, c.nothingHeard()
	}
	return 0, fmt.Errorf("the daemon has not re-exec'd itself within %v", c.timeout)
}

// awaitChanges waits for what a reload changes. Where something is amiss it says that
// the new configuration is in use: without that it looks like a refusal.
func (c *cli) awaitChanges(ctx context.Context, client *api.Client, before *view.State, diff *view.Diff, version uint64) error {
	e := &effect{version: version, before: slotsOf(before)}
	scaled := make(map[string]bool)
	for _, d := range diff.Entries {
		if d.Action != view.ActionKeep && d.Action != view.ActionUpdate {
			e.targets = append(e.targets, target{d.Name, api.AllSlots})
		}
		scaled[d.Name] = d.Action == view.ActionScale
	}
	e.scales = func(entry string) bool { return scaled[entry] }
	_, err := c.settle(ctx, client, e)
	if err == nil || errors.Is(err, api.ErrNoDaemon) {
		return err
	}
	return failures{errors.New("the new configuration is in use, but not all that it changes is done"), err}
}

func newDiffCommand(c *cli) *cobra.Command {
	output := ""
	cmd := &cobra.Command{
		Use:   "diff",
		Short: "Show what a reload would do",
		Args:  cobra.NoArgs,
		RunE: c.do(func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			client, err := c.connect()
			if err != nil {
				return err
			}
			defer client.Close()
			diff, err := ask(cmd.Context(), c, c.answerTimeout, client.Diff)
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(c.stdout, diff)
			}
			printDiff(c, diff, true)
			return nil
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json")
	return cmd
}

// printDiff prints a line a change, and with kept a line for each entry that
// stays as it is.
func printDiff(c *cli, diff *view.Diff, kept bool) {
	for _, key := range diff.Daemon {
		fmt.Fprintf(c.stdout, "%-8s %s\n", "daemon", key)
	}
	for _, e := range diff.Entries {
		if e.Action == view.ActionKeep && !kept {
			continue
		}
		line := fmt.Sprintf("%-8s %s", e.Action, e.Name)
		switch {
		case e.Action == view.ActionScale && e.From != nil && e.To != nil:
			line += fmt.Sprintf(" (%d to %d)", *e.From, *e.To)
		case len(e.Keys) > 0:
			line += " (" + strings.Join(e.Keys, ", ") + ")"
		}
		fmt.Fprintln(c.stdout, line)
	}
}

func newCheckCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Validate a configuration; no daemon needed",
		Args:  cobra.NoArgs,
		RunE: c.do(func(*cobra.Command, []string) error {
			path, err := c.configPath()
			if err != nil {
				return err
			}
			cfg, err := config.Load(path, loadOptions())
			if err != nil {
				return err
			}
			// More is known by the daemon alone, which may run in another cgroup.
			missing, err := limits(cfg, spawn.HostLacks)
			if err != nil {
				return err
			}
			for _, m := range missing {
				fmt.Fprintln(c.stderr, "sentryd: "+m)
			}
			noun := "entries"
			if len(cfg.Entries) == 1 {
				noun = "entry"
			}
			fmt.Fprintf(c.stdout, "%s: ok, %d %s\n", path, len(cfg.Entries), noun)
			return nil
		}),
	}
}

func newVersionCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		RunE: c.do(func(*cobra.Command, []string) error {
			fmt.Fprintf(c.stdout, "sentryd %s (%s, %s/%s)\n", c.version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		}),
	}
}
