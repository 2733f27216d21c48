// Bench measures sentryd beside a bare loop in C, the same loop in Go, and the
// supervisors that are installed (supervisord, dinit), all in one run, and
// prints absolute figures and ratios to the C loop.
//
//	go run ./bench [-short] [-huge 10000] [-run REGEXP] [-json FILE] …
//
// Every contender keeps the same static child running (c/child.c). The children
// leave their marks, times of CLOCK_MONOTONIC, on a shared page (c/board.h), so
// nobody is asked anything while it is measured. The contenders take turns
// within a round (A B C, C B A, …), the figures are medians of several rounds,
// and a ratio is the median of the ratios of each round, because the machine
// may be shared and noisy. A target that is not met is printed, never an error:
// the exit code is 1 only if something could not run.
//
// It needs a C compiler (cc) with a static libc, and Go. As root it can also
// show what a listener of the proc connector costs. It knows sentryd only from
// outside: command line, configuration, signals, HTTP. It must not import any
// package of it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// options are the command line.
type options struct {
	short     bool
	rounds    int
	children  int
	huge      int // children of the scenario of that name; 0 = not played
	run, only *regexp.Regexp
	sentryd   string
	dinit     string
	json      string
	survive   bool
	verbose   bool
}

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.BoolVar(&o.short, "short", false, "fewer rounds and samples: a look, not a measurement")
	f.IntVar(&o.huge, "huge", 0, "also play the scenario of `N` children in one daemon, 10000 say")
	f.IntVar(&o.rounds, "rounds", 0, "rounds of each scenario (default 5, with -short 2)")
	f.IntVar(&o.children, "children", 1000, "children in the scenarios of many")
	runs := f.String("run", "", "only scenarios whose name matches this `regexp`")
	only := f.String("only", "", "only contenders whose name matches this `regexp`")
	f.StringVar(&o.sentryd, "sentryd", "", "the sentryd binary to measure (default: built from this tree)")
	f.StringVar(&o.dinit, "dinit", "dinit", "the dinit binary, a path or looked up in PATH")
	f.StringVar(&o.json, "json", "", "also write all figures to this `file`")
	f.BoolVar(&o.survive, "survive", false, "instead: what becomes of a program whose supervisor gets SIGKILL and is started again")
	f.BoolVar(&o.verbose, "v", false, "print each figure as it comes")
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "usage: go run ./bench [flags]\n\nscenarios: %s\n\n", strings.Join(scenarioNames(), " "))
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	var err error
	if o.run, err = regexp.Compile(*runs); err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	if o.only, err = regexp.Compile(*only); err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	if o.rounds == 0 {
		o.rounds = 5
		if o.short {
			o.rounds = 2
		}
	}
	if o.children < 1 || o.children > 10000 || o.huge < 0 || o.huge > 10000 || o.rounds < 1 {
		return nil, errors.New("-children and -huge take up to 10000, -rounds at least 1")
	}
	return o, nil
}

// run builds everything, plays every scenario and prints the report. Whatever
// happens, nothing that it started or wrote is left when it returns.
func run(ctx context.Context, o *options) (err error) {
	r, err := newRig(ctx, o)
	if err != nil {
		return err
	}
	defer r.close()

	if o.survive {
		return surviveAll(ctx, r)
	}
	rep := newReport(o, r)
	rep.printHead()
	failed := 0
	for _, s := range scenarios(o) {
		if !o.run.MatchString(s.name) {
			continue
		}
		failed += play(ctx, r, s)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		rep.add(s)
	}
	rep.printSummary()
	if o.json != "" {
		if err := rep.writeJSON(o.json); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d measurements could not be made", failed)
	}
	return nil
}

// play runs one scenario, all contenders in turn in every round, and returns
// how many measurements failed.
func play(ctx context.Context, r *rig, s *scenario) (failed int) {
	before, err := others()
	if err != nil {
		r.notes = append(r.notes, err.Error())
	}
	defer func() {
		if after, err := others(); err == nil && s.took > 0 {
			s.others = max(0, float64(after-before)/float64(s.took))
		}
	}()
	for round := range s.rounds {
		for i := range r.contenders {
			if round%2 == 1 {
				i = len(r.contenders) - 1 - i
			}
			c := r.contenders[i]
			if c.missing != "" || c.peer && round >= (s.rounds+1)/2 || s.who != nil && !s.who(c) {
				continue
			}
			began := time.Now()
			figures, err := s.run(ctx, r, c)
			s.took += time.Since(began)
			if ctx.Err() != nil {
				return failed
			}
			if err != nil {
				failed++
				s.failures = append(s.failures, fmt.Sprintf("%s, round %d: %v", c.name, round+1, err))
				fmt.Fprintf(os.Stderr, "bench: %s: %s\n", s.name, s.failures[len(s.failures)-1])
				continue
			}
			for name, v := range figures {
				s.metric(name).put(c.name, round, v)
				if r.verbose {
					fmt.Printf("    %s %d %s %s %.4g\n", s.name, round+1, c.name, name, v)
				}
			}
		}
	}
	return failed
}
