package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/sentryd/sentryd/pkg/api"
	"github.com/sentryd/sentryd/pkg/logs"
	"github.com/sentryd/sentryd/pkg/state"
)

func newStartCommand(c *cli) *cobra.Command {
	format := ""
	cmd := &cobra.Command{
		Use:   "start [NAME...]",
		Short: "Run the daemon in the foreground, or start entries or slots of the running one",
		RunE: c.do(func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.startDaemon(format)
			}
			return c.each(cmd, args, func(ctx context.Context, client *api.Client, t target) (*api.Result, error) {
				return client.Start(ctx, t.entry, t.slot, 0)
			})
		}),
		ValidArgsFunction: c.completeNames,
	}
	cmd.Flags().StringVar(&format, "log.format", "", "of the daemon's output: logfmt or json, as records (default: lines for people)")
	c.waits(cmd)
	return cmd
}

// startDaemon runs the daemon until its end.
func (c *cli) startDaemon(format string) error {
	formats := map[string]logs.Format{"": logs.Seed, "logfmt": logs.Logfmt, "json": logs.JSON}
	f, ok := formats[format]
	if !ok {
		return usagef("--log.format: %q is not logfmt or json", format)
	}
	if c.signals == nil {
		c.signals = notifySignals()
	}
	path, err := c.configPath()
	if err != nil && os.Getenv(state.Environ) == "" {
		return err // a new image has its configuration with its state
	}
	dir, _, err := c.runtimeBase()
	if err != nil {
		return err
	}
	return runDaemon(daemonOptions{
		config: path, runtimeDir: dir, format: f, color: useColor(c.stdout), version: c.version,
	}, c.signals)
}
