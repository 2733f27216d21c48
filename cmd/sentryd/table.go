package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sentryd/sentryd/pkg/view"
)

// printStatus prints a state for people, who may be tired: one line on the
// daemon, a line for each thing that is amiss with it, then a line a slot.
// Columns are separated by blanks and hold none, but for the last one.
func printStatus(w io.Writer, st *view.State, now time.Time, color bool) {
	d := &st.Daemon
	paint := func(code, s string) string {
		if !color || code == "" {
			return s
		}
		return "\x1b[" + code + "m" + s + "\x1b[0m"
	}
	fmt.Fprintf(w, "%s: pid %d, up %s, %s, sentryd %s\n", d.Name, d.PID, brief(now.Sub(d.StartedAt)), printable(d.Config), printable(d.Version))
	for _, line := range amiss(d, now) {
		fmt.Fprintln(w, paint("33", "! "+printable(line)))
	}
	rows := [][]string{{"NAME", "STATE", "PID", "UPTIME", "INC", "NEXT", "LAST EXIT"}}
	for _, e := range st.Entries {
		for _, p := range e.Processes {
			rows = append(rows, row(e, p, now))
		}
		if len(e.Processes) == 0 {
			rows = append(rows, []string{e.Name, "-", "-", "-", "-", "-", "no slots"})
		}
	}
	if len(rows) == 1 {
		fmt.Fprintln(w, "no entries")
		return
	}
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for n, r := range rows {
		var b strings.Builder
		for i, cell := range r {
			if i == len(r)-1 {
				b.WriteString(cell)
				break
			}
			painted := cell
			if i == 1 && n > 0 {
				painted = paint(stateColor(cell), cell)
			}
			b.WriteString(painted)
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// amiss says, a sentence each, what a person should know about the daemon.
func amiss(d *view.Daemon, now time.Time) []string {
	var lines []string
	if d.Stopping {
		lines = append(lines, "The daemon is stopping.")
	}
	if r := d.LastReload; !r.OK && r.Error != "" {
		lines = append(lines, fmt.Sprintf("The last reload, %s ago, was refused: %s", brief(now.Sub(r.At)), strings.ReplaceAll(r.Error, "\n", "; ")))
	}
	for _, l := range d.Listeners {
		if !l.Up {
			lines = append(lines, fmt.Sprintf("Not listening on %s: %s", l.Address, l.Error))
		}
	}
	if !d.ProcConnector.Up {
		lines = append(lines, "The proc connector is not heard: "+d.ProcConnector.Reason)
	}
	return append(lines, d.Missing...)
}

func row(e *view.Entry, p *view.Process, now time.Time) []string {
	state, pid, uptime, next := p.State, "-", "-", "-"
	if p.State == view.Running && !p.Ready {
		state = "running,not-ready"
	}
	if p.PID != 0 {
		pid = strconv.Itoa(p.PID)
	}
	if p.StartedAt != nil {
		uptime = brief(now.Sub(*p.StartedAt))
	}
	if p.NextStartAt != nil {
		next = brief(p.NextStartAt.Sub(now))
	}
	var notes []string
	if x := p.LastExit; x != nil {
		notes = append(notes, fmt.Sprintf("%s, %s ago", describeExit(x), brief(now.Sub(x.At))))
	}
	if p.Error != "" && (p.LastExit == nil || p.Error != p.LastExit.Error) {
		notes = append(notes, p.Error)
	}
	if p.WaitingFor != "" {
		notes = append(notes, "waits for "+p.WaitingFor)
	}
	if len(p.Stragglers) > 0 {
		notes = append(notes, "left of its tree: "+strings.Trim(fmt.Sprint(p.Stragglers), "[]"))
	}
	if len(notes) == 0 {
		notes = []string{"-"}
	}
	return []string{
		fmt.Sprintf("%s:%d", e.Name, p.Slot), state, pid, uptime,
		strconv.FormatUint(p.Incarnation, 10), next,
		strings.ReplaceAll(printable(strings.Join(notes, "; ")), "\n", " "),
	}
}

// describeExit says how an incarnation ended, and on whose wish if that was
// not its own.
func describeExit(x *view.Exit) string {
	if x == nil {
		return "no reason is known"
	}
	var s string
	switch x.Reason {
	case view.ReasonExited:
		s = "exited"
		if x.Code != nil {
			s = fmt.Sprintf("exited with code %d", *x.Code)
		}
	case view.ReasonSignaled:
		s = "ended by " + x.Signal
		if x.Core {
			s += " (core dumped)"
		}
	case view.ReasonStartFailed:
		s = "start failed"
		if x.Error != "" {
			s += ": " + x.Error
		}
	default:
		s = "ended, how is unknown"
		if x.Error != "" {
			s += ": " + x.Error
		}
	}
	if x.OOM {
		s += ", out of memory"
	}
	if x.Initiator != "" && x.Initiator != "process" {
		s += " (" + x.Initiator + ")"
	}
	return s
}

func stateColor(state string) string {
	switch state {
	case view.Running:
		return "32"
	case view.Stopped, view.Exited, "-":
		return ""
	case view.Failed:
		return "1;31"
	}
	return "33"
}
