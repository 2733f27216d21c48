package main

import (
	"strings"
	"testing"
	"time"

	"github.com/sentryd/sentryd/pkg/view"
)

func TestEventsCommand(t *testing.T) {
	d := newFakeDaemon(t)
	zero, one, two, code := 0, 1, 2, 3
	at := time.Date(2026, 4, 10, 18, 17, 51, 123456789, time.Local)
	next := at.Add(4 * time.Second)
	d.events = []view.Event{
		{Kind: view.EventAdded, Entry: "web"},
		{Kind: view.EventStarted, Entry: "web", Slot: &zero, Incarnation: 7, PID: 4242},
		{Kind: view.EventExited, Entry: "web", Slot: &zero, PID: 4242, Exit: &view.Exit{Reason: view.ReasonExited, Code: &code}},
		{Kind: view.EventBackoff, Entry: "web", Slot: &zero, NextStartAt: &next},
		{Kind: view.EventScaled, Entry: "api", Count: &two, Initiator: "scale"},
		{Kind: view.EventStarted, Entry: "api", Slot: &one, Incarnation: 1, PID: 4300},
		{Kind: view.EventConnectorDown, Message: "lost\x1b[31m"},
	}
	for i := range d.events {
		d.events[i].Seq, d.events[i].At = uint64(i+1), at
	}
	lines := []string{
		"18:17:51.123  web                    -  added\n",
		"18:17:51.123  web:0               4242  started         incarnation 7\n",
		"18:17:51.123  web:0               4242  exited          exited with code 3\n",
		"18:17:51.123  web:0                  -  backoff         next start in 4s\n",
		"18:17:51.123  api                    -  scaled          to 2, by scale\n",
		"18:17:51.123  api:1               4300  started         incarnation 1\n",
		"18:17:51.123  -                      -  connector_down  lost\\x1b[31m\n",
	}
	for _, test := range []struct {
		line string
		want []int
	}{
		{"events", []int{0, 1, 2, 3, 4, 5, 6}},
		{"events web", []int{0, 1, 2, 3}},
		{"events web:0", []int{1, 2, 3}},
		{"events *:1 nope", []int{5}},
	} {
		code, out, errs := sentryd(strings.Fields(test.line)...)
		want := ""
		for _, i := range test.want {
			want += lines[i]
		}
		if code != 0 || errs != "" || out != want {
			t.Errorf("%s: exit code %d, %q, printed\n%s\nwant\n%s", test.line, code, errs, out, want)
		}
	}
	if code, _, errs := sentryd("events", "web:x"); code != exitUsage || !strings.Contains(errs, "a slot is a number") {
		t.Errorf("%d %q", code, errs)
	}
	if code, out, _ := sentryd("events", "-o", "json", "api:1"); code != 0 || !strings.HasPrefix(out, `{"seq":6,"at":"2026-04-10T`) {
		t.Errorf("%d %q", code, out)
	}
}

func TestEventsFollowsUntilTheDaemonEnds(t *testing.T) {
	d := newFakeDaemon(t)
	for i := range lastEvents + 5 {
		d.events = append(d.events, view.Event{Seq: uint64(i + 1), Kind: view.EventStarted, Entry: "web"})
	}
	d.endAtRest = true
	code, out, errs := sentryd("events", "-f")
	if code != 0 || errs != "" || strings.Count(out, "\n") != lastEvents {
		t.Errorf("exit code %d, %q, printed\n%s", code, errs, out)
	}
}
