// Gotest runs go test, prints what go test would print, and judges the skips.
//
//	go run ./internal/gotest [flags of go test] PACKAGES
//
// Every skip is listed with its reason at the end, and with SENTRYD_FULL=1 in
// the environment a skip that internal/verdict does not expect fails the run.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/sentryd/sentryd/internal/verdict"
)

func main() {
	place := verdict.Anywhere
	if os.Getenv("SENTRYD_FULL") == "1" {
		place = verdict.FullRun
	}
	code, err := run("", os.Args[1:], place, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
	}
	os.Exit(code)
}

// run runs go test with args in dir and returns the exit code of the whole.
func run(dir string, args []string, place verdict.Place, stdout, stderr io.Writer) (int, error) {
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
	rep := verdict.New(stdout)
	readErr := rep.Read(stream)
	waitErr := cmd.Wait()
	ok := rep.Summary(place)

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
