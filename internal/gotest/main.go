// Gotest runs go test, prints what go test would print, and judges the skips.
//
//	go run ./internal/gotest [flags of go test] PACKAGES
//
// A test that needs root, the proc connector or a tool skips where that is
// missing, which is right on a developer's machine and wrong where everything
// is meant to be there: a test that never runs protects nothing. So every skip
// is listed with its reason at the end, and with SENTRYD_FULL=1 in the
// environment a skip that is not in the list of expected.go fails the run.
//
// It knows go test's JSON stream (go doc test2json) and nothing of sentryd.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

func main() {
	full := os.Getenv("SENTRYD_FULL") == "1"
	code, err := run("", os.Args[1:], full, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
	}
	os.Exit(code)
}

// run runs go test with args in dir and returns the exit code of the whole.
func run(dir string, args []string, full bool, stdout, stderr io.Writer) (int, error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Dir = dir
	cmd.Stderr = stderr
	stream, err := cmd.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("start go test: %w", err)
	}
	rep := newReport(stdout)
	readErr := rep.read(stream)
	waitErr := cmd.Wait()
	ok := rep.summary(full)

	var exit *exec.ExitError
	switch {
	case errors.As(waitErr, &exit):
		return max(exit.ExitCode(), 1), nil
	case waitErr != nil:
		return 1, fmt.Errorf("wait for go test: %w", waitErr)
	case readErr != nil:
		return 1, readErr
	case !ok:
		return 1, nil
	}
	return 0, nil
}

// An event is one line of go test -json.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// decode calls f for each event of the stream. A line that is no JSON, such as
// what a test binary's child writes past the testing package, is passed to raw.
func decode(stream io.Reader, f func(event), raw func(string)) error {
	return eachLine(stream, func(line []byte) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			raw(string(line))
			return
		}
		f(e)
	})
}
