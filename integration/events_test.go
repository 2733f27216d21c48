package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// An eventState is what the tests read of an event.
type eventState struct {
	Seq         uint64     `json:"seq"`
	Kind        string     `json:"kind"`
	Entry       string     `json:"entry"`
	Slot        *int       `json:"slot"`
	Incarnation uint64     `json:"incarnation"`
	PID         int        `json:"pid"`
	Exit        *exitState `json:"exit"`
	Count       *int       `json:"count"`
	Message     string     `json:"message"`
	Missed      uint64     `json:"missed"`
}

func TestEventsOverAReexec(t *testing.T) {
	d := startDaemon(t, "entries: {a: {command: sleep 100000, delay: 10}}", options{})
	first := d.running("a", 1).process("a", 0).PID
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	follow := exec.CommandContext(ctx, d.cli, "-c", d.configPath(), "events", "-f", "-o", "json")
	follow.Dir, follow.Env = d.dir, d.env
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	last := uint64(0)
	await := func(what string, ok func(e *eventState) bool) {
		t.Helper()
		for lines.Scan() {
			e := new(eventState)
			if err := json.Unmarshal(lines.Bytes(), e); err != nil {
				t.Fatal(err)
			}
			if e.Seq != last+1 {
				t.Errorf("event %d after %d: %s", e.Seq, last, lines.Text())
			}
			last = e.Seq
			if ok(e) {
				return
			}
		}
		t.Fatalf("the stream ended before: %s (%v)\n%s", what, lines.Err(), d)
	}
	await("the start", func(e *eventState) bool { return e.Kind == "started" && e.PID == first })
	if !d.kill(first, unix.SIGKILL) {
		t.Fatalf("%d is not there", first)
	}
	await("the exit", func(e *eventState) bool {
		return e.Kind == "exited" && e.PID == first && e.Exit != nil && e.Exit.Signal == "SIGKILL"
	})
	for range 3 {
		d.reexec()
		await("the reload", func(e *eventState) bool { return e.Kind == "reloaded" })
	}
	d.must("scale", "a=2")
	await("the scale", func(e *eventState) bool { return e.Kind == "scaled" && *e.Count == 2 })
	await("the second slot", func(e *eventState) bool { return e.Kind == "started" && *e.Slot == 1 })
	d.signal(unix.SIGTERM)
	for lines.Scan() {
	}
	if err := follow.Wait(); err != nil {
		t.Errorf("events -f ended with %v", err)
	}
	d.finish(0)
}

func TestEventsStreamForBrowsers(t *testing.T) {
	d := startDaemon(t, "entries: {a: {command: sleep 100000}}", options{})
	d.running("a", 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://localhost/v1/events?since=0", nil)
	resp, err := d.client.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type %q", got)
	}
	lines := bufio.NewScanner(resp.Body)
	for _, want := range []string{"id: 1", "event: added", "data: "} {
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), want) {
			t.Fatalf("%q, want %q", lines.Text(), want)
		}
	}
}

func TestEventsOfTheWholeHost(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.Connector())
	d := startDaemon(t, "entries: {}", options{}) // for its environment: events --all needs no daemon
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	all := exec.CommandContext(ctx, d.cli, "events", "--all", "-o", "json")
	all.Env = d.env
	all.Cancel = func() error { return all.Process.Signal(unix.SIGKILL) }
	out, err := all.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := all.Start(); err != nil {
		t.Fatal(err)
	}
	type hostEvent struct {
		At         time.Time `json:"at"`
		Kind       string    `json:"kind"`
		PID        int       `json:"pid"`
		Parent     int       `json:"parent"`
		Command    []string  `json:"command"`
		DurationMS *float64  `json:"duration_ms"`
		Code       *int      `json:"code"`
	}
	// A child that nobody else has, again and again until one is seen: the
	// command says nothing when it begins to listen.
	mark := "sentryd-test-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			// Its exit code is what is asked for.
			_ = exec.CommandContext(ctx, "sh", "-c", "exit 7", mark).Run()
		}
	}()
	seen := map[int]string{}
	for lines := bufio.NewScanner(out); ; {
		if !lines.Scan() {
			t.Fatalf("the events ended: %v, seen %v", lines.Err(), seen)
		}
		var e hostEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if e.Kind == "fork" {
			seen[e.PID] = "fork"
		}
		if !strings.Contains(strings.Join(e.Command, " "), mark) {
			continue
		}
		seen[e.PID] += " " + e.Kind
		if seen[e.PID] == "fork exec exit" {
			if e.Code == nil || *e.Code != 7 || e.DurationMS == nil || *e.DurationMS <= 0 {
				t.Errorf("the exit reads %s", lines.Text())
			}
			break
		}
	}
	close(stop)
	<-done
	if err := all.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
	}
	if err := all.Wait(); err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
}
