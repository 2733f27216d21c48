// Package verdict reads go test's JSON stream (go doc test2json), prints what
// go test would print, and judges the skips.
//
// A test that needs root, the proc connector or a tool skips where that is
// missing, which is right on a developer's machine and wrong where everything
// is meant to be there: a test that never runs protects nothing. So every skip
// is listed with its reason at the end, and where the run is a full one a skip
// that is not in the list of expected.go fails it.
//
// It knows the stream and nothing of sentryd, nor where the stream comes from:
// internal/gotest and internal/vmtest run the tests.
package verdict

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strings"
)

// An Event is one line of go test -json.
type Event struct {
	Action  string
	Package string
	Test    string // empty in what concerns the whole package
	Output  string
	Elapsed float64 // seconds, in pass, fail and skip
}

// A Report gathers a run's events, printing what matters as it comes. It is for
// one goroutine.
type Report struct {
	Passed, Failed, Skipped int // tests so far, subtests included

	out    io.Writer
	output map[key]*strings.Builder // of tests that have not ended
	skips  []skip
}

type key struct{ pkg, test string }

// A skip is one test that did not run, and why.
type skip struct {
	key
	reason string
}

// New returns an empty report that prints to out.
func New(out io.Writer) *Report {
	return &Report{out: out, output: map[key]*strings.Builder{}}
}

// Read takes a whole stream. A line that is no JSON, such as what a test
// binary's child writes past the testing package, is printed as it is.
func (r *Report) Read(stream io.Reader) error {
	return Decode(stream, r.Add, func(line string) { fmt.Fprintln(r.out, line) })
}

// Add takes one event. A test's output is kept until it ends and shown only if
// it failed, as go test does without -v.
func (r *Report) Add(e Event) {
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
				r.flush(func(k key) bool { return k.pkg == e.Package })
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
			r.Passed++
		case "fail":
			r.Failed++
			io.WriteString(r.out, text)
		case "skip":
			r.Skipped++
			r.skips = append(r.skips, skip{k, skipReason(text)})
		}
	}
}

// flush shows the output of tests that never ended: the binary panicked, ran
// into its time limit or was killed.
func (r *Report) flush(which func(key) bool) {
	var open []key
	for k := range r.output {
		if which(k) {
			open = append(open, k)
		}
	}
	sort.Slice(open, func(i, j int) bool { return open[i].test < open[j].test })
	for _, k := range open {
		r.Failed++
		fmt.Fprintf(r.out, "--- FAIL: %s (never ended)\n%s", k.test, r.output[k])
		delete(r.output, k)
	}
}

// Summary ends the report: it prints the skips by reason and the closing line,
// and says whether the skips are acceptable at that place. A test whose end
// never came has failed.
func (r *Report) Summary(place Place) bool {
	r.flush(func(key) bool { return true })
	ok := true
	sort.Slice(r.skips, func(i, j int) bool { return r.skips[i].reason < r.skips[j].reason })
	for _, s := range r.skips {
		note := ""
		switch why := expected(place, s.reason); {
		case why != "":
			note = " (expected: " + why + ")"
		case place != Anywhere:
			note = " (NOT EXPECTED in the full run)"
			ok = false
		}
		fmt.Fprintf(r.out, "skip  %s.%s: %s%s\n", s.pkg, s.test, s.reason, note)
	}
	if !ok {
		fmt.Fprintln(r.out, "a test skipped where all has to run: install or grant what it needs, or list it in internal/verdict/expected.go")
	}
	fmt.Fprintf(r.out, "tests: %d passed, %d failed, %d skipped\n", r.Passed, r.Failed, r.Skipped)
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

// Decode calls f for each event of a stream, and raw for each line that is no
// JSON.
func Decode(stream io.Reader, f func(Event), raw func(string)) error {
	in := bufio.NewReader(stream)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var e Event
			if json.Unmarshal(line, &e) == nil {
				f(e)
			} else {
				raw(strings.TrimRight(string(line), "\r\n"))
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read go test's output: %w", err)
		}
	}
}
