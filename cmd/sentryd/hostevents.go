package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/kballard/go-shellquote"
	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/procevents"
)

// hostBuffer is enough for a storm of some 80,000 events while the terminal is
// slow.
const hostBuffer = 64 << 20

// hostEvents shows every fork, exec and exit on the host until the user has
// enough. It asks the kernel itself, so no daemon is needed.
func (c *cli) hostEvents(ctx context.Context, output string) error {
	l, err := procevents.Dial(procevents.Config{
		Buffer: hostBuffer, Kinds: []procevents.Kind{procevents.Fork, procevents.Exec, procevents.Exit},
	})
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	watch := newHostWatch()
	out := bufio.NewWriter(c.stdout)
	show := func(e *hostEvent) { fmt.Fprintln(out, e) }
	if output == "json" {
		lines := json.NewEncoder(out)
		show = func(e *hostEvent) { _ = lines.Encode(e) } // what failed shows at Flush
	}
	events := make([]procevents.Event, 128)
	for {
		n, err := l.Receive(events)
		for i := range events[:n] {
			if e, ok := watch.observe(&events[i]); ok {
				show(&e)
			}
		}
		var lost *procevents.LostError
		switch {
		case err == nil:
		case errors.As(err, &lost):
			show(&hostEvent{At: time.Now(), Kind: "missed", Missed: lost.Events})
			watch.forgetEnded()
		case ctx.Err() != nil:
			return out.Flush()
		default:
			return err
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
}

// newHostWatch knows what runs now.
func newHostWatch() *hostWatch {
	h := &hostWatch{command: commandOf, ended: hasEnded, known: make(map[int32]*hostProcess)}
	now := monotonic()
	h.wall = func(at time.Duration) time.Time { return time.Now().Add(at - now()) }
	fs, err := procfs.NewFS(procfs.DefaultMountPoint)
	if err != nil {
		return h // without /proc commands and parents stay unknown
	}
	all, err := fs.AllProcs()
	if err != nil {
		return h
	}
	for _, p := range all {
		if st, err := p.Stat(); err == nil {
			h.begin(p.PID, st.PPID, commandOf(p.PID))
		}
	}
	return h
}

// commandOf returns the command line of a process, or its name in brackets
// where it has none, as ps(1) does; nil when it is gone.
func commandOf(pid int) []string {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return nil
	}
	if command, err := p.CmdLine(); err == nil && len(command) > 0 {
		return command
	}
	name, err := p.Comm()
	if err != nil {
		return nil
	}
	return []string{"[" + name + "]"}
}

// hasEnded says whether a whole process has ended, by a pidfd: its first thread
// may be gone while others go on.
func hasEnded(pid int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

func signalText(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(s))
}

// String returns one line of columns.
func (e *hostEvent) String() string {
	at := e.At.Local().Format("15:04:05.000000")
	if e.Kind == "missed" {
		if e.Missed == 0 {
			return at + "  missed events, an unknown number"
		}
		return fmt.Sprintf("%s  missed %d events", at, e.Missed)
	}
	parent, duration, status, command := "-", "-", "-", "-"
	if e.Parent != 0 {
		parent = fmt.Sprint(e.Parent)
	}
	if e.DurationMS != nil {
		duration = time.Duration(*e.DurationMS * 1e6).Round(time.Millisecond).String()
	}
	switch {
	case e.Code != nil:
		status = fmt.Sprint(*e.Code)
	case e.Core:
		status = e.Signal + "+" // as shells say "core dumped"
	case e.Signal != "":
		status = e.Signal
	}
	if len(e.Command) > 0 {
		// Quoted for a shell, and one line whatever is in it.
		command = strings.ReplaceAll(printable(shellquote.Join(e.Command...)), "\n", `\n`)
	}
	return fmt.Sprintf("%s  %-6s %7d  %7s  %9s  %-8s  %s", at, e.Kind, e.PID, parent, duration, status, command)
}
