package main

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strings"
)

// A report gathers a run's events, printing what matters as it comes.
type report struct {
	out                     io.Writer
	output                  map[key]*strings.Builder // of tests that have not ended
	passed, failed, skipped int
	skips                   []skip
}

type key struct{ pkg, test string }

// A skip is one test that did not run, and why.
type skip struct {
	key
	reason string
}

func newReport(out io.Writer) *report {
	return &report{out: out, output: map[key]*strings.Builder{}}
}

func (r *report) read(stream io.Reader) error {
	return decode(stream, r.add, func(line string) { fmt.Fprintln(r.out, line) })
}

// add takes one event. A test's output is kept until it ends and shown only if
// it failed, as go test does without -v.
func (r *report) add(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		io.WriteString(r.out, e.Output)
	case "output":
		if e.Test == "" {
			if e.Output != "PASS\n" { // said once more by the line "ok  PACKAGE"
				io.WriteString(r.out, e.Output)
			}
			return
		}
		b := r.output[k]
		if b == nil {
			b = &strings.Builder{}
			r.output[k] = b
		}
		b.WriteString(e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			if e.Action == "fail" {
				r.flush(e.Package)
			}
			return
		}
		text := ""
		if b := r.output[k]; b != nil {
			text = b.String()
			delete(r.output, k)
		}
		switch e.Action {
		case "pass":
			r.passed++
		case "fail":
			r.failed++
			io.WriteString(r.out, text)
		case "skip":
			r.skipped++
			r.skips = append(r.skips, skip{k, skipReason(text)})
		}
	}
}

// flush shows the output of a package's tests that never ended: the binary
// panicked, ran into its time limit or was killed.
func (r *report) flush(pkg string) {
	var open []key
	for k := range r.output {
		if k.pkg == pkg {
			open = append(open, k)
		}
	}
	sort.Slice(open, func(i, j int) bool { return open[i].test < open[j].test })
	for _, k := range open {
		r.failed++
		fmt.Fprintf(r.out, "--- FAIL: %s (never ended)\n%s", k.test, r.output[k])
		delete(r.output, k)
	}
}

// summary prints the skips by reason and the closing line, and says whether
// the skips are acceptable.
func (r *report) summary(full bool) bool {
	ok := true
	sort.Slice(r.skips, func(i, j int) bool { return r.skips[i].reason < r.skips[j].reason })
	for _, s := range r.skips {
		note := ""
		switch why := expected(s.reason); {
		case why != "":
			note = " (expected: " + why + ")"
		case full:
			note = " (NOT EXPECTED in the full run)"
			ok = false
		}
		fmt.Fprintf(r.out, "skip  %s.%s: %s%s\n", s.pkg, s.test, s.reason, note)
	}
	if !ok {
		fmt.Fprintln(r.out, "gotest: SENTRYD_FULL=1 and a test skipped: install or grant what it needs, or list it in internal/gotest/expected.go")
	}
	fmt.Fprintf(r.out, "tests: %d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	return ok
}

// skipReason takes the reason out of a skipped test's output, where the testing
// package writes it as "    file_test.go:12: reason".
func skipReason(output string) string {
	location := regexp.MustCompile(`^\s+\S+\.go:\d+: (.*)$`)
	reason := "no reason given"
	for line := range strings.Lines(output) {
		if m := location.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			reason = m[1]
		}
	}
	return reason
}

// eachLine calls f for every line of the stream, of whatever length.
func eachLine(stream io.Reader, f func([]byte)) error {
	in := bufio.NewReader(stream)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			f(line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read go test's output: %w", err)
		}
	}
}
