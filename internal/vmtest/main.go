// Vmtest runs the tests under the kernels that Debian's users have, in virtual
// machines.
//
//	go run ./internal/vmtest [-kernel 6.1] [-pkg REGEXP] [-run REGEXP]
//
// It takes each kernel from Debian, makes an initramfs of the test binaries, the
// tools they use and an init of its own, boots it in qemu, and judges what comes
// back as internal/gotest judges a run on the host: with a list of the skips
// that are all right under that kernel. It is run in the repository's root, and
// changes nothing of the host but the files below -dir.
//
// suite.go says what runs.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/verdict"
	"github.com/sentryd/sentryd/internal/vmtest/job"
)

type options struct {
	dir, mirror, packages, kernels, run string
	slow                                int
	long, part                          bool
	limit                               time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "bin/vmtest", "`directory` for kernels, binaries and consoles; the kernels in it are used again")
	flag.StringVar(&o.mirror, "mirror", "", "`URL` of a mirror of Debian (default the one that this host's apt uses)")
	flag.StringVar(&o.kernels, "kernel", "", "comma-separated `list` of the kernels to boot: 6.1, 6.12, newest (default the first two)")
	flag.StringVar(&o.packages, "pkg", "", "`regexp` of the packages to test")
	flag.StringVar(&o.run, "run", "", "`regexp` of the tests to run, as go test -run has it")
	flag.BoolVar(&o.part, "part", false, "run of large packages only what suite.go says")
	flag.BoolVar(&o.long, "long", false, "run the tests without -short")
	flag.IntVar(&o.slow, "slow", 10, "`factor` for the deadlines of tests")
	flag.DurationVar(&o.limit, "limit", time.Hour, "longest `time` for one machine")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	ok, err := vmtest(ctx, o, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmtest:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

// A result is one line of the table at the end.
type result struct {
	kernel  string
	release string
	report  *verdict.Report
	took    time.Duration
	cpu     time.Duration // of the two processors
	ok      bool
}

// vmtest runs the machines at once: none of them keeps two processors busy. What
// each has to say is printed when it has ended.
func vmtest(ctx context.Context, o options, out io.Writer) (bool, error) {
	kernels, suites, err := choose(o.kernels, o.packages)
	if err != nil {
		return false, err
	}
	built := filepath.Join(o.dir, "tests")
	if err := build(ctx, built, suites); err != nil {
		return false, err
	}
	images, err := newImage(ctx, built, os.Getenv("SENTRYD_FULL") == "1")
	if err != nil {
		return false, err
	}
	for _, s := range suites {
		for _, omitted := range s.skip {
			where := ""
			if omitted.kernel != "" {
				where = " (under " + omitted.kernel + ")"
			}
			fmt.Fprintf(out, "not run%s: %s: %s: %s\n", where, s.pkg, strings.ReplaceAll(omitted.tests, "|", " "), omitted.why)
		}
	}
	results := make([]result, len(kernels))
	errs := make([]error, len(kernels))
	texts := make([]bytes.Buffer, len(kernels))
	var machines sync.WaitGroup
	for i, k := range kernels {
		machines.Go(func() { results[i], errs[i] = boot(ctx, o, k, suites, images, &texts[i]) })
	}
	machines.Wait()
	for i := range texts {
		if _, err := texts[i].WriteTo(out); err != nil {
			return false, err
		}
	}
	if err := errors.Join(errs...); err != nil {
		return false, err
	}
	return table(out, results), nil
}

// boot runs the suites under one kernel. What goes wrong in the machine is part
// of the result; an error is what kept it from being started.
func boot(ctx context.Context, o options, k kernel, list []suite, images *imageMaker, out io.Writer) (result, error) {
	mirror := o.mirror
	if mirror == "" {
		var err error
		if mirror, err = hostMirror(ctx); err != nil {
			return result{}, err
		}
	}
	u, err := k.fetch(ctx, o.dir, mirror)
	if err != nil {
		return result{}, err
	}
	m := machine{
		image: u.image, mib: k.mib,
		initrd:  filepath.Join(o.dir, "initrd-"+k.series),
		console: filepath.Join(o.dir, "console-"+k.series),
		events:  filepath.Join(o.dir, "events-"+k.series),
	}
	fmt.Fprintf(out, "== Linux %s (Debian %s, %d MiB)\n", u.release, k.suite, m.mib)
	r := result{kernel: k.series, release: u.release, report: verdict.New(out), ok: true}
	err = r.play(ctx, m, o.limit, list, out, func(left []suite) error {
		plain, systemd := tests(left, k, o, (o.limit - o.limit/8).String())
		return images.write(ctx, m.initrd, u, plain, systemd, o.slow)
	})
	if err != nil {
		return result{}, err
	}
	if !r.report.Summary(verdict.Place(k.series)) || r.report.Failed > 0 {
		r.ok = false
	}
	return r, nil
}

// mostTries is how often a machine is booted when it is the emulator that ends it.
const mostTries = 3

// play runs the suites, for which write makes the machine's initramfs. When the
// emulator broke, which is no verdict on anything, the packages that have not
// ended are run again in another machine, and only that run counts.
func (r *result) play(ctx context.Context, m machine, limit time.Duration, list []suite, out io.Writer, write func([]suite) error) error {
	left := list
	for try := 1; ; try++ {
		if err := write(left); err != nil {
			return err
		}
		ended, open, err := r.run(ctx, m, limit, out)
		left = slices.DeleteFunc(slices.Clone(left), func(s suite) bool { return ended[s.pkg] })
		if err == nil {
			break
		}
		word, again := "FAIL", try < mostTries && m.broke()
		if again {
			word = "AGAIN"
		}
		fmt.Fprintf(out, "%s\tLinux %s: %v; the end of the console:\n", word, r.release, err)
		if err := tail(out, m.console, 8<<10); err != nil {
			return err
		}
		if !again {
			r.ok = false
			for _, e := range open {
				r.report.Add(e)
			}
			break
		}
	}
	for _, s := range left {
		r.ok = false
		fmt.Fprintf(out, "FAIL\t%s: never ended\n", s.pkg)
	}
	return nil
}

// run boots the machine and reports on the packages that end in it, which is one
// after the other. It returns which those are, and the events of one that has not.
func (r *result) run(ctx context.Context, m machine, limit time.Duration, out io.Writer) (ended map[string]bool, open []verdict.Event, err error) {
	ended = map[string]bool{}
	begin := time.Now()
	cpu, err := m.run(ctx, limit, func(e verdict.Event) {
		if e.Action != job.Ended {
			open = append(open, e)
			return
		}
		for _, e := range open {
			r.report.Add(e)
		}
		open = nil
		ended[e.Package] = true
		word := "ok  "
		if e.Output != job.Pass {
			word, r.ok = "FAIL", false
			r.report.Add(verdict.Event{Action: "fail", Package: e.Package}) // shows what never ended
		}
		fmt.Fprintf(out, "%s\t%s\t%.1fs\n", word, e.Package, e.Elapsed)
	}, func(line string) { fmt.Fprintln(out, line) })
	r.took += time.Since(begin)
	r.cpu += cpu
	return ended, open, err
}

// table prints a line for each kernel and one for all, and returns whether all
// is well.
func table(out io.Writer, results []result) bool {
	ok := true
	var passed, failed, skipped int
	fmt.Fprintf(out, "\n%-32s %8s %8s %8s %8s %8s\n", "kernel", "passed", "failed", "skipped", "seconds", "of CPU")
	for _, r := range results {
		word := ""
		if !r.ok {
			word, ok = " FAIL", false
		}
		fmt.Fprintf(out, "%-32s %8d %8d %8d %8.0f %8.0f%s\n", strings.TrimSuffix(r.release, "-amd64"), r.report.Passed, r.report.Failed, r.report.Skipped, r.took.Seconds(), r.cpu.Seconds(), word)
		passed, failed, skipped = passed+r.report.Passed, failed+r.report.Failed, skipped+r.report.Skipped
	}
	fmt.Fprintf(out, "tests: %d passed, %d failed, %d skipped\n", passed, failed, skipped)
	return ok
}
