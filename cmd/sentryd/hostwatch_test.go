package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentryd/sentryd/pkg/procevents"
)

func TestHostWatch(t *testing.T) {
	commands := map[int][]string{}
	ended := map[int]bool{}
	h := &hostWatch{
		command: func(pid int) []string { return commands[pid] },
		ended:   func(pid int) bool { return ended[pid] },
		wall:    func(at time.Duration) time.Time { return time.Unix(1000, 0).Add(at).UTC() },
		known:   make(map[int32]*hostProcess),
	}
	h.begin(10, 1, []string{"sh"})
	var got []string
	at := time.Second
	hear := func(kind procevents.Kind, pid, tgid, parent int32, status uint32) {
		at += 10 * time.Millisecond
		e := procevents.Event{Kind: kind, PID: pid, TGID: tgid, ParentTGID: parent, ParentPID: parent, Timestamp: at, ExitCode: status}
		if x, ok := h.observe(&e); ok {
			line := fmt.Sprintf("%s %d of %d %s", x.Kind, x.PID, x.Parent, strings.Join(x.Command, " "))
			if x.DurationMS != nil {
				line += fmt.Sprintf(" %gms", *x.DurationMS)
			}
			if x.Code != nil {
				line += fmt.Sprintf(" code %d", *x.Code)
			}
			got = append(got, line+" "+x.Signal)
		}
	}
	hear(procevents.Fork, 20, 20, 10, 0)
	commands[20] = []string{"server", "-x"}
	hear(procevents.Exec, 20, 20, 0, 0)
	hear(procevents.Fork, 21, 20, 20, 0) // a thread
	hear(procevents.Exit, 20, 20, 10, 3<<8)
	hear(procevents.Comm, 21, 20, 0, 0)
	ended[20] = true
	hear(procevents.Exit, 21, 20, 10, 0)
	hear(procevents.Fork, 22, 22, 10, 0)
	ended[22] = true
	hear(procevents.Exit, 22, 22, 0, 9)     // the parent is not told
	hear(procevents.Exit, 30, 30, 10, 1<<8) // of one that lives, began before, and is not known
	ended[10] = true
	hear(procevents.Exit, 10, 10, 1, 0)
	want := []string{
		"fork 20 of 10 sh ",
		"exec 20 of 10 server -x ",
		"exit 20 of 10 server -x 50ms code 3 ",
		"fork 22 of 10 sh ",
		"exit 22 of 10 sh 10ms SIGKILL",
		"exit 10 of 1 sh code 0 ",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	ended[30] = true
	if h.forgetEnded(); len(h.known) != 0 {
		t.Errorf("still known: %v", h.known)
	}
}

func TestHostEventLines(t *testing.T) {
	at := time.Date(2026, 4, 10, 18, 17, 51, 123456789, time.Local)
	ms, code := 1234.5, 7
	for _, test := range []struct {
		event hostEvent
		want  string
	}{
		{hostEvent{At: at, Kind: "fork", PID: 20, Parent: 10, Command: []string{"sh"}}, "18:17:51.123456  fork        20       10          -  -         sh"},
		{hostEvent{At: at, Kind: "exec", PID: 20, Parent: 10, Command: []string{"a", "b c", "\x1b"}}, "18:17:51.123456  exec        20       10          -  -         a 'b c' \\x1b"},
		{hostEvent{At: at, Kind: "exit", PID: 20, DurationMS: &ms, Code: &code}, "18:17:51.123456  exit        20        -     1.235s  7         -"},
		{hostEvent{At: at, Kind: "exit", PID: 20, Parent: 1, Signal: "SIGSEGV", Core: true, Command: []string{"x"}}, "18:17:51.123456  exit        20        1          -  SIGSEGV+  x"},
		{hostEvent{At: at, Kind: "missed", Missed: 7}, "18:17:51.123456  missed 7 events"},
	} {
		if got := test.event.String(); got != test.want {
			t.Errorf("got\n%q, want\n%q", got, test.want)
		}
	}
}
