package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sentryd/sentryd/pkg/api"
	"github.com/sentryd/sentryd/pkg/config"
)

// Exit codes follow the LSB's for init scripts. `status NAME` has its own: 3
// when the entry is not up, 4 when there is none.
const (
	exitDone       = 0
	exitFailed     = 1
	exitUsage      = 2 // or a bad configuration
	exitNotUp      = 3
	exitNoEntry    = 4
	exitNotAllowed = 4
	exitNoDaemon   = 7
)

// cli is one run of the program.
type cli struct {
	stdout, stderr io.Writer
	version        string
	signals        *signals // of a daemon's new image; else nil

	// Flags of every command.
	config     string
	socket     string
	runtimeDir string

	// Flags of those that wait for their effect.
	noWait  bool
	timeout time.Duration

	answerTimeout time.Duration // as the constant, which is what 0 stands for
	peer          int           // pid of the daemon that connect found; 0 if it is not known

	ran  bool // a command was reached: what fails from then on is not usage
	code int  // exit code of a command that did not fail
}

// run executes a command line and returns the exit code.
func (c *cli) run(args []string) int {
	c.answerTimeout = cmp.Or(c.answerTimeout, answerTimeout)
	root := c.newRootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteC()
	switch {
	case err == nil:
		return c.code
	case !c.ran:
		c.complain(oneLine(err))
		fmt.Fprintf(c.stderr, "Try '%s --help'.\n", cmd.CommandPath())
		return exitUsage
	}
	c.complain(err)
	return exitCode(err)
}

// oneLine puts cobra's suggestions behind its error.
func oneLine(err error) error {
	message, names, ok := strings.Cut(err.Error(), "\n\nDid you mean this?\n\t")
	if !ok {
		return err
	}
	return fmt.Errorf("%s: did you mean %s?", message, strings.Join(strings.Fields(names), " or "))
}

func (c *cli) newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "sentryd",
		Short: "Keep programs running",
		Long: `sentryd keeps programs running, and says exactly and at once what became of them.

Without a NAME a command is about the daemon, with one it is about entries or
slots of the running daemon: "web" is all of an entry, "web:0" its first slot,
"'*'" every entry.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	// Not cobra's Version, whose output is text/template's: with that in the program
	// the linker keeps every exported method of every type, which is a sixth of it.
	version := root.Flags().BoolP("version", "v", false, "version for sentryd")
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		if !*version {
			return errors.New("no command")
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "sentryd %s\n", c.version)
		return err
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&c.config, "config", "c", "", "configuration: a path (with a / or ending in .yaml), or a name to look up (default sentry)")
	flags.StringVarP(&c.socket, "socket", "s", "", "control socket of the daemon to talk to (SENTRYD_SOCKET)")
	flags.StringVar(&c.runtimeDir, "runtime-dir", "", "directory in which the daemon's NAME directory is (SENTRYD_RUNTIME_DIR)")
	check := newCheckStateCommand()
	check.RunE = c.do(check.RunE)
	root.AddCommand(
		newStartCommand(c), newStopCommand(c), newRestartCommand(c), newScaleCommand(c), newSignalCommand(c),
		newStatusCommand(c), newEventsCommand(c), newTreeCommand(c), newCheckCommand(c), newDiffCommand(c), newReloadCommand(c),
		newVersionCommand(c), newLiftLimitsCommand(c), check,
	)
	addCompletionCommand(root)
	addHelpCommand(root)
	return root
}

// addHelpCommand adds cobra's own, made to insist on a command that there is: cobra's
// prints the usage and succeeds.
func addHelpCommand(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, _ := root.Find([]string{"help"})
	help.RunE = func(_ *cobra.Command, args []string) error {
		cmd, rest, err := root.Find(args)
		switch {
		case err != nil:
			return err
		case len(rest) > 0:
			return fmt.Errorf("unknown command %q for %q", rest[0], cmd.CommandPath())
		}
		cmd.InitDefaultHelpFlag()
		return cmd.Help()
	}
}

// addCompletionCommand adds cobra's own, made to insist on a shell that it knows:
// cobra's prints its help and succeeds.
func addCompletionCommand(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			cmd.Args = cobra.NoArgs
			cmd.RunE = func(*cobra.Command, []string) error { return errors.New("no shell is named") }
		}
	}
}

// do marks a command as reached.
func (c *cli) do(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c.ran = true
		return f(cmd, args)
	}
}

// waits adds the flags of a command that waits for its effect.
func (c *cli) waits(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.noWait, "no-wait", false, "return once the daemon has taken the command")
	c.timeout = 30 * time.Second
	cmd.Flags().Var((*positive)(&c.timeout), "timeout", "how long to wait for the effect")
}

// positive is a flag's duration above 0: in no time nothing can be waited for.
type positive time.Duration

func (p *positive) String() string { return time.Duration(*p).String() }
func (p *positive) Type() string   { return "duration" }

func (p *positive) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err == nil && d <= 0 {
		err = errors.New("not above 0")
	}
	*p = positive(d)
	return err
}

// usageError is a mistake on the command line that cobra does not see.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// failures are what went wrong with several names of one command.
type failures []error

func (f failures) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].Error()
	}
	return strings.Join(lines, "\n")
}

// orNil returns an error only if there is one.
func (f failures) orNil() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

// exitCode returns what a failed command ends with: that of its first failure.
func exitCode(err error) int {
	var several failures
	if errors.As(err, &several) {
		err = several[0]
	}
	var usage *usageError
	var refused *api.Error
	var mistakes config.Errors
	switch {
	case errors.As(err, &usage), errors.As(err, &mistakes):
		return exitUsage
	case errors.Is(err, api.ErrNoDaemon):
		return exitNoDaemon
	case errors.As(err, &refused):
		switch refused.Status {
		case http.StatusUnauthorized, http.StatusForbidden:
			return exitNotAllowed
		case http.StatusUnprocessableEntity: // the configuration
			return exitUsage
		}
		return exitFailed
	case errors.Is(err, fs.ErrPermission):
		return exitNotAllowed
	}
	return exitFailed
}

// complain prints an error: a line each, "sentryd: " before it. Mistakes in a
// configuration stand at the start of their lines, where editors look for
// FILE:LINE.
func (c *cli) complain(err error) {
	var several failures
	var mistakes config.Errors
	var refused *api.Error
	switch {
	case errors.As(err, &several):
		for _, err := range several {
			c.complain(err)
		}
	case errors.As(err, &mistakes):
		fmt.Fprintln(c.stderr, mistakes)
	case errors.As(err, &refused) && refused.Status == http.StatusUnprocessableEntity:
		fmt.Fprintf(c.stderr, "sentryd: refused, nothing has changed:\n%s\n", printable(err.Error()))
	default:
		fmt.Fprintf(c.stderr, "sentryd: %s\n", strings.ReplaceAll(printable(err.Error()), "\n", "\nsentryd: "))
	}
}
