package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

const (
	// PreflightFD is the descriptor in which a binary that [Preflight] tries
	// finds the state; see [ReadState].
	PreflightFD = 3
	// PreflightOK is the line that such a binary prints when it can go on
	// from that state. Exit code 0 alone is not enough: /bin/true exits so.
	PreflightOK = "sentryd: state ok"

	preflightTimeout = 10 * time.Second
	preflightOutput  = 4 << 10 // bytes of output kept
)

// Preflight runs path with args on a copy of the state in data, while the
// caller still serves, and returns nil only when it exits with code 0 after
// it printed [PreflightOK] as a line of its standard output. The binary runs
// in a process group of its own with an empty standard input and is killed
// when ctx ends, at the latest after 10 s. The error is one line that a person can act on:
// the binary is missing, not executable, truncated, ended by a signal at
// start, refused the state, or hung.
func Preflight(ctx context.Context, path string, args []string, data []byte) error {
	sealed, err := Seal(data)
	if err != nil {
		return fmt.Errorf("preflight %s: %w", path, err)
	}
	defer sealed.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, preflightTimeout,
		fmt.Errorf("no answer within %v", preflightTimeout))
	defer cancel()

	stdout, stderr := &firstBytes{max: preflightOutput}, &firstBytes{max: preflightOutput}
	pidfd := -1
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Path, cmd.Err = path, nil // as execve will: no search in PATH
	// What describes this process to its manager is not for a trial run.
	cmd.Env = without(os.Environ(), Environ, "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC",
		"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.ExtraFiles = []*os.File{sealed}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd}
	cmd.WaitDelay = time.Second // something it started may hold the output open
	cmd.Cancel = func() error {
		if pidfd < 0 { // below 5.4: the number is safe too, it is not reaped yet
			return cmd.Process.Kill()
		}
		return killGroup(pidfd)
	}
	err = cmd.Run()
	if pidfd >= 0 {
		killGroup(pidfd) // what it left behind
		unix.Close(pidfd)
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("preflight %s: %w", path, context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("preflight %s: %w", path, explain(err, stderr, stdout))
	}
	for line := range strings.Lines(stdout.buf.String()) {
		if strings.TrimSpace(line) == PreflightOK {
			return nil
		}
	}
	return fmt.Errorf("preflight %s: it did not confirm the state; is it sentryd?", path)
}

// killGroup kills the process of a pidfd and its group where the kernel can
// (PIDFD_SIGNAL_PROCESS_GROUP, 6.9), else the process alone.
func killGroup(pidfd int) error {
	err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
	if errors.Is(err, unix.EINVAL) {
		err = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	}
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// explain turns how a trial run ended into one line.
func explain(err error, outputs ...*firstBytes) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		// Not started: errors of package os repeat operation and path.
		var pe *os.PathError
		if errors.As(err, &pe) {
			return pe.Err
		}
		return err
	}
	how := fmt.Sprintf("exit code %d", exit.ExitCode())
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		how = "ended by " + unix.SignalName(ws.Signal())
	}
	for _, out := range outputs {
		if line := out.firstLine(); line != "" {
			return fmt.Errorf("%s: %s", how, line)
		}
	}
	return errors.New(how)
}

// firstBytes is a writer that keeps the first max bytes and takes the rest.
type firstBytes struct {
	buf bytes.Buffer
	max int
}

func (w *firstBytes) Write(p []byte) (int, error) {
	w.buf.Write(p[:min(len(p), w.max-w.buf.Len())])
	return len(p), nil
}

// firstLine returns the first line that is not empty, bounded and printable.
func (w *firstBytes) firstLine() string {
	const maxLen = 300
	for line := range strings.Lines(strings.ToValidUTF8(w.buf.String(), "?")) {
		line = strings.TrimSpace(strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return ' '
			}
			return r
		}, line))
		if len(line) > maxLen {
			line = line[:maxLen] + "…"
		}
		if line != "" {
			return strings.ToValidUTF8(line, "")
		}
	}
	return ""
}
