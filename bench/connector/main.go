// Connector measures what listening to the kernel's process events costs and
// loses: sentryd beside a bare recvmmsg loop in C (bench/c/listen.c),
// github.com/vishvananda/netlink's monitor and forkstat, where these are there.
//
//	go run ./bench/connector [-n 100000] [-rounds 3] [-run REGEXP] [-sentryd BINARY]
//
// Each listens alone while two processes start children that end at once, with
// vfork; -n 1000000 is the full measurement. What is printed is the median of
// the rounds: how much longer the storm takes than without anybody listening,
// how many of its forks and exits did not arrive, and the listener's own CPU an
// event, beside the C loop's in the same round. Other programs' processes on the
// host are events too, so it counts more than the storm's on a busy host.
//
// It needs root, Linux 5.10, a C compiler and Go, and knows sentryd only from
// outside.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
)

type options struct {
	n       int
	rounds  int
	run     *regexp.Regexp
	sentryd string
}

func main() {
	o := options{}
	flag.IntVar(&o.n, "n", 100_000, "start `N` children a storm; the full measurement has 1000000")
	flag.IntVar(&o.rounds, "rounds", 3, "take the median of so many")
	flag.StringVar(&o.sentryd, "sentryd", "", "the sentryd binary to measure (default: built from this tree)")
	run := flag.String("run", "", "only contenders whose name matches this `regexp`")
	flag.Parse()
	var err error
	if o.run, err = regexp.Compile(*run); err != nil || flag.NArg() > 0 || o.n < 2 || o.rounds < 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := measure(o); err != nil {
		fmt.Fprintln(os.Stderr, "connector:", err)
		os.Exit(1)
	}
}

// figures are what one contender did in one round.
type figures struct {
	storm  float64 // seconds
	events uint64  // that it got
	lost   uint64  // of the storm's forks and exits
	cpu    float64 // seconds, its own
}

func measure(o options) error {
	if os.Geteuid() != 0 {
		fmt.Println("skipped: needs root, for a large buffer and other programs' events")
		return nil
	}
	dir, err := os.MkdirTemp("", "sentryd-connector-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b, err := build(dir, o)
	if err != nil {
		return err
	}
	all := b.contenders()
	rounds := make([][]figures, len(all))
	for round := range o.rounds {
		for i, c := range all {
			if c.missing != "" || c.name != nobody && !o.run.MatchString(c.name) {
				continue
			}
			f, err := b.play(c, o.n)
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", c.name, round+1, err)
			}
			rounds[i] = append(rounds[i], f)
		}
	}
	report(o, all, rounds)
	return nil
}

func report(o options, all []contender, rounds [][]figures) {
	fmt.Printf("%d vfork and exit by two processes, %d rounds\n\n", o.n, o.rounds)
	fmt.Printf("%-26s %9s %8s %10s %10s %9s %8s\n", "listening", "storm", "ratio", "events", "lost", "CPU/event", "ratio")
	index := func(name string) int {
		return slices.IndexFunc(all, func(c contender) bool { return c.name == name })
	}
	quiet, floor := rounds[index(nobody)], rounds[index(bareLoop)]
	for i, c := range all {
		own := rounds[i]
		switch {
		case c.missing != "":
			fmt.Printf("%-26s %s\n", c.name, c.missing)
			continue
		case len(own) == 0:
			continue
		}
		line := fmt.Sprintf("%-26s %7.2f s %7.2fx", c.name, median(own, func(_ int, f figures) float64 { return f.storm }),
			median(own, func(r int, f figures) float64 { return f.storm / quiet[r].storm }))
		if c.launch == nil {
			fmt.Println(line)
			continue
		}
		line += fmt.Sprintf(" %10.0f %10.0f", median(own, func(_ int, f figures) float64 { return float64(f.events) }),
			median(own, func(_ int, f figures) float64 { return float64(f.lost) }))
		if own[0].events > 0 {
			line += fmt.Sprintf(" %6.2f us", median(own, func(_ int, f figures) float64 { return perEvent(f) }))
		} else {
			line += fmt.Sprintf(" %9s", "-")
		}
		if own[0].events > 0 && len(floor) > 0 {
			ratio := median(own, func(r int, f figures) float64 { return perEvent(f) / perEvent(floor[r]) })
			line += fmt.Sprintf(" %7.2fx", ratio)
			if c.atMost > 0 {
				line += fmt.Sprintf("  (at most %.1f: %s)", c.atMost, map[bool]string{true: "met", false: "NOT MET"}[ratio <= c.atMost])
			}
		}
		fmt.Println(line)
	}
}

func perEvent(f figures) float64 { return 1e6 * f.cpu / float64(max(f.events, 1)) }

func median(rounds []figures, of func(int, figures) float64) float64 {
	var all []float64
	for r, f := range rounds {
		all = append(all, of(r, f))
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}
