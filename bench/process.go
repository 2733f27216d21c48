package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a program that the benchmark started, in a process group of its
// own so that a Ctrl-C at the terminal reaches the benchmark alone. Signals go
// through its pidfd only.
type process struct {
	name    string
	program string
	pid     int
	pidfd   int
	output  string // the file that has its standard error, and output if kept
	ended   chan struct{}
	err     error // how it ended; valid after ended is closed
}

// start runs a contender in dir, as startEnv does.
func start(dir string, c *contender, argv ...string) (*process, error) {
	launch := c.launch
	if launch == nil {
		launch = (*exec.Cmd).Start
	}
	return startEnv(dir, c.name, c.keepOutput, nil, launch, argv...)
}

// startEnv runs argv in dir with a bare environment and what env adds to it. Its
// standard input is /dev/null; its standard error, and its output if keep is set, go
// to a file.
func startEnv(dir, name string, keep bool, env []string, launch func(*exec.Cmd) error, argv ...string) (*process, error) {
	p := &process{name: name, program: argv[0], pidfd: -1, output: filepath.Join(dir, "output"), ended: make(chan struct{})}
	out, err := os.OpenFile(p.output, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "LC_ALL=C"}
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = out
	if keep {
		cmd.Stdout = out
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, PidFD: &p.pidfd}
	if err := launch(cmd); err != nil {
		return nil, err
	}
	p.pid = cmd.Process.Pid
	if p.pidfd < 0 {
		// Kernels below 5.4, or a sandbox: nothing here could be signalled safely.
		return nil, fmt.Errorf("start %s: the kernel gave no pidfd", name)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (p *process) signal(sig unix.Signal) error {
	if err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0); err != nil {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// check returns an error with the end of its output if the process has ended.
func (p *process) check() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended (%v): %s", p.name, p.err, p.tail())
	default:
		return nil
	}
}

// wait waits for the end of the process.
func (p *process) wait(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-p.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s has not ended within %v: %s", p.name, limit, p.tail())
	}
}

// tail is the end of what the process printed, for an error message.
func (p *process) tail() string {
	data, err := os.ReadFile(p.output)
	if err != nil || len(bytes.TrimSpace(data)) == 0 {
		return "no output"
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], " | ")
}

func (p *process) close() { unix.Close(p.pidfd) }

// pause waits for d, or less if ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var errTimeout = errors.New("timed out")

// await looks at done every few milliseconds until it holds. The precision of
// the figures does not depend on it: they come from the children's marks.
func await(ctx context.Context, limit time.Duration, what string, done func() (bool, error)) error {
	const every = 5 * time.Millisecond
	for end := monotonic() + limit; ; {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if monotonic() > end {
			return fmt.Errorf("%s: %w after %v", what, errTimeout, limit)
		}
		if err := pause(ctx, every); err != nil {
			return err
		}
	}
}

// child is a live child of a contender, held by a pidfd.
type child struct{ pidfd int }

// openChild opens the process pid and makes sure that it is a live child of
// parent: the pidfd pins the process, and what /proc says of the number is
// about the same process as long as that one has not ended.
func openChild(pid, parent int) (child, error) {
	if pid <= 1 {
		return child{}, fmt.Errorf("child pid %d", pid)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return child{}, fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	c := child{fd}
	ppid, err := parentOf(pid)
	if err == nil && ppid != parent {
		err = fmt.Errorf("process %d is a child of %d, not of %d", pid, ppid, parent)
	}
	if err == nil && c.ended() {
		err = fmt.Errorf("process %d has ended", pid)
	}
	if err != nil {
		unix.Close(fd)
		return child{}, err
	}
	return c, nil
}

// ended says whether the process is dead.
func (c child) ended() bool {
	fds := []unix.PollFd{{Fd: int32(c.pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1
}

// parentOf reads the parent from the fourth field of /proc/PID/stat.
func parentOf(pid int) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	var state string
	var ppid int
	// The name may hold anything; the last parenthesis ends it.
	if _, err := fmt.Sscan(string(data[bytes.LastIndexByte(data, ')')+1:]), &state, &ppid); err != nil {
		return 0, fmt.Errorf("read parent of %d: %w", pid, err)
	}
	return ppid, nil
}
