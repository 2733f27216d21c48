package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentryd/sentryd/pkg/view"
)

func TestStatusCodes(t *testing.T) {
	exited := func(code int) *view.Entry {
		e := entry("job", view.Exited)
		e.Processes[0].LastExit = &view.Exit{Reason: view.ReasonExited, Code: &code}
		return e
	}
	notReady := entry("slow", view.Running)
	notReady.Processes[0].Ready = false
	for _, test := range []struct {
		entries []*view.Entry
		args    string
		want    int
	}{
		{nil, "", 0},
		{[]*view.Entry{entry("a", view.Running), entry("b", view.Stopped), entry("c")}, "", 0},
		{[]*view.Entry{entry("a", view.Running), entry("b", view.Backoff)}, "", 3},
		{[]*view.Entry{entry("a", view.Running), entry("b", view.Backoff)}, "a", 0},
		{[]*view.Entry{entry("a", view.Running), entry("b", view.Backoff)}, "*", 3},
		{[]*view.Entry{entry("a", view.Starting)}, "", 3},
		{[]*view.Entry{entry("a", view.Failed)}, "", 3},
		{[]*view.Entry{entry("a", view.Stopped)}, "a", 3},
		{[]*view.Entry{entry("a", view.Running, view.Stopped)}, "a", 3},
		{[]*view.Entry{entry("a", view.Running, view.Stopped)}, "a:0", 0},
		{[]*view.Entry{entry("a", view.Running, view.Stopped)}, "a:1", 3},
		{[]*view.Entry{notReady}, "slow", 3},
		{[]*view.Entry{notReady}, "", 3},
		{[]*view.Entry{exited(0)}, "job", 0},
		{[]*view.Entry{exited(1)}, "job", 3},
		{[]*view.Entry{exited(1)}, "", 0},
		{[]*view.Entry{entry("a", view.Running)}, "nope", 4},
		{[]*view.Entry{entry("a", view.Running)}, "a:5", 4},
		{[]*view.Entry{entry("a", view.Running)}, "a:x", 2},
	} {
		newFakeDaemon(t, test.entries...)
		args := append([]string{"status"}, strings.Fields(test.args)...)
		if code, _, errs := sentryd(args...); code != test.want {
			t.Errorf("status %s: exit code %d, want %d: %s", test.args, code, test.want, errs)
		}
	}
}

func TestStatusTable(t *testing.T) {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *time.Time { t := now.Add(-d); return &t }
	zero, one := 0, 1
	st := &view.State{
		Daemon: view.Daemon{
			Name: "sample", PID: 1511, Config: "/etc/sentryd/sample.yaml", Version: "1.0", StartedAt: *ago(75 * time.Hour),
			ProcConnector: view.ProcConnector{Reason: "needs CAP_NET_ADMIN"},
			Listeners:     []view.Listener{{Address: "127.0.0.1:8001", Error: "address already in use"}, {Address: "[::1]:8001", Up: true}},
			LastReload:    view.Reload{At: *ago(5 * time.Minute), Error: "/a.yaml:1: bad\n/a.yaml:2: worse"},
			Missing:       []string{"No containment: a stop reaches the process group."},
		},
		Entries: []*view.Entry{
			{Name: "cron", Processes: []*view.Process{{Slot: 0, State: view.Exited, Incarnation: 1,
				LastExit: &view.Exit{At: *ago(26 * time.Hour), Reason: view.ReasonExited, Code: &zero, Initiator: "process"}}}},
			{Name: "none"},
			{Name: "web", Processes: []*view.Process{
				{Slot: 0, State: view.Running, Ready: true, PID: 1550, Incarnation: 5, StartedAt: ago(4 * time.Second),
					LastExit: &view.Exit{At: *ago(5 * time.Second), Reason: view.ReasonExited, Code: &one, Initiator: "process"}},
				{Slot: 1, State: view.Backoff, Incarnation: 12, NextStartAt: ago(-8 * time.Second),
					LastExit: &view.Exit{At: *ago(2 * time.Second), Reason: view.ReasonStartFailed, Error: "exec /usr/bin/nope: no such file or directory"},
					Error:    "exec /usr/bin/nope: no such file or directory"},
				{Slot: 2, State: view.Stopping, PID: 1600, Incarnation: 1, StartedAt: ago(3700 * time.Second), Stragglers: []int{1601, 1602}},
				{Slot: 3, State: view.Running, PID: 1700, Incarnation: 1, StartedAt: ago(61 * time.Second),
					LastExit: &view.Exit{At: *ago(time.Hour), Reason: view.ReasonSignaled, Signal: "SIGKILL", OOM: true, Initiator: "oom"}, WaitingFor: "db"},
				{Slot: 4, State: view.Failed, Error: "evil \x1b[2J\nname"},
			}},
		},
	}
	want := `sample: pid 1511, up 3d03h, /etc/sentryd/sample.yaml, sentryd 1.0
! The last reload, 5m00s ago, was refused: /a.yaml:1: bad; /a.yaml:2: worse
! Not listening on 127.0.0.1:8001: address already in use
! The proc connector is not heard: needs CAP_NET_ADMIN
! No containment: a stop reaches the process group.
NAME    STATE              PID   UPTIME  INC  NEXT  LAST EXIT
cron:0  exited             -     -       1    -     exited with code 0, 1d02h ago
none    -                  -     -       -    -     no slots
web:0   running            1550  4s      5    -     exited with code 1, 5s ago
web:1   backoff            -     -       12   8s    start failed: exec /usr/bin/nope: no such file or directory, 2s ago
web:2   stopping           1600  1h01m   1    -     left of its tree: 1601 1602
web:3   running,not-ready  1700  1m01s   1    -     ended by SIGKILL, out of memory (oom), 1h00m ago; waits for db
web:4   failed             -     -       0    -     evil \x1b[2J name
`
	var b strings.Builder
	printStatus(&b, st, now, false)
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("table differs (-want +got):\n%s", diff)
	}
	b.Reset()
	printStatus(&b, st, now, true)
	for _, painted := range []string{"\x1b[32mrunning\x1b[0m    ", "\x1b[1;31mfailed\x1b[0m", "\x1b[33m! No containment"} {
		if !strings.Contains(b.String(), painted) {
			t.Errorf("%q is not in the coloured table", painted)
		}
	}
}

func TestStatusJSON(t *testing.T) {
	newFakeDaemon(t, entry("api", view.Running), entry("web", view.Running, view.Backoff))
	for _, test := range []struct{ args, want string }{
		{"", "api:0 web:0 web:1"}, {"web", "web:0 web:1"}, {"web:1 api", "api:0 web:1"},
	} {
		_, out, _ := sentryd(append([]string{"status", "-o", "json"}, strings.Fields(test.args)...)...)
		var st view.State
		if err := json.Unmarshal([]byte(out), &st); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var got []string
		for _, e := range st.Entries {
			for _, p := range e.Processes {
				got = append(got, fmt.Sprintf("%s:%d", e.Name, p.Slot))
			}
		}
		if strings.Join(got, " ") != test.want || st.Daemon.Name != "web" || st.Version == 0 {
			t.Errorf("status -o json %s: %v of %+v", test.args, got, st.Daemon)
		}
	}
}

func TestStatusWatch(t *testing.T) {
	d := newFakeDaemon(t, entry("web", view.Running))
	read, write := io.Pipe()
	done := make(chan int)
	go func() {
		c := &cli{stdout: write, stderr: io.Discard}
		done <- c.run([]string{"status", "--watch", "-c", "web"})
		write.Close()
	}()
	buf := make([]byte, 4096)
	see := func(text string) {
		t.Helper()
		for seen := ""; !strings.Contains(seen, text); {
			n, err := read.Read(buf)
			if err != nil {
				t.Fatalf("%v before %q; saw %q", err, text, seen)
			}
			seen += string(buf[:n])
		}
	}
	see("web:0  running")
	d.mu.Lock()
	d.publish(func(st *view.State) { st.Entries[0].Processes[0].State = view.Stopped })
	d.mu.Unlock()
	see("web:0  stopped")
	d.end()
	go io.Copy(io.Discard, read)
	if code := <-done; code != exitNoDaemon {
		t.Errorf("exit code %d, want %d", code, exitNoDaemon)
	}
}

// BenchmarkStatus: `status` of 1,000 slots has 20 ms, the start of the process
// included.
func BenchmarkStatus(b *testing.B) {
	states := make([]string, 1000)
	for i := range states {
		states[i] = view.Running
	}
	st := &view.State{Entries: []*view.Entry{entry("web", states...)}}
	for b.Loop() {
		printStatus(io.Discard, st, time.Now(), true)
	}
}
