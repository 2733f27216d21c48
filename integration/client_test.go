package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What the tests read of GET /v1/state, written down anew: a field that is
// renamed or changes its type in the daemon breaks them.
type (
	state struct {
		Version uint64        `json:"version"`
		Daemon  daemonState   `json:"daemon"`
		Entries []*entryState `json:"entries"`
	}
	daemonState struct {
		Name          string    `json:"name"`
		PID           int       `json:"pid"`
		StartedAt     time.Time `json:"started_at"`
		Reexecs       uint64    `json:"reexecs"`
		Version       string    `json:"version"`
		Containment   string    `json:"containment"`
		Missing       []string  `json:"missing"`
		ProcConnector struct {
			Up     bool   `json:"up"`
			Reason string `json:"reason"`
		} `json:"proc_connector"`
		Listeners []struct {
			Address string `json:"address"`
			Up      bool   `json:"up"`
			Error   string `json:"error"`
		} `json:"listeners"`
		LastReload struct {
			OK    bool   `json:"ok"`
			Error string `json:"error"`
		} `json:"last_reload"`
	}
	entryState struct {
		Name        string          `json:"name"`
		Command     []string        `json:"command"`
		DelayMS     int64           `json:"delay_ms"`
		Count       int             `json:"count"`
		State       string          `json:"state"`
		Running     int             `json:"running"`
		Ready       int             `json:"ready"`
		Starts      uint64          `json:"starts"`
		Exits       uint64          `json:"exits"`
		Descendants int             `json:"descendants"`
		Processes   []*processState `json:"processes"`
	}
	processState struct {
		Slot        int        `json:"slot"`
		Incarnation uint64     `json:"incarnation"`
		PID         int        `json:"pid"`
		State       string     `json:"state"`
		Adopted     bool       `json:"adopted"`
		StartedAt   *time.Time `json:"started_at"`
		NextStartAt *time.Time `json:"next_start_at"`
		Error       string     `json:"error"`
		Stragglers  []int      `json:"stragglers"`
		LastExit    *exitState `json:"last_exit"`
	}
	exitState struct {
		At          time.Time `json:"at"`
		PID         int       `json:"pid"`
		Incarnation uint64    `json:"incarnation"`
		Reason      string    `json:"reason"`
		Code        *int      `json:"code"`
		Signal      string    `json:"signal"`
		OOM         bool      `json:"oom"`
		Initiator   string    `json:"initiator"`
		Error       string    `json:"error"`
		UptimeMS    int64     `json:"uptime_ms"`
	}
)

// entry returns the entry of that name, or one without a name.
func (s *state) entry(name string) *entryState {
	for _, e := range s.Entries {
		if e.Name == name {
			return e
		}
	}
	return &entryState{}
}

// process returns a slot, or one that is none (slot -1).
func (s *state) process(entry string, slot int) *processState {
	for _, p := range s.entry(entry).Processes {
		if p.Slot == slot {
			return p
		}
	}
	return &processState{Slot: -1}
}

// pids returns the pids of all processes of the entry that there are.
func (e *entryState) pids() []int {
	var pids []int
	for _, p := range e.Processes {
		if p.PID != 0 {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// checkCounters holds every entry to starts = exits + live, and every process
// to a slot of its own.
func checkCounters(t *testing.T, s *state) {
	t.Helper()
	seen := map[int]string{}
	for _, e := range s.Entries {
		live := e.pids()
		if e.Starts != e.Exits+uint64(len(live)) {
			t.Errorf("%s: %d starts, %d exits and %d live", e.Name, e.Starts, e.Exits, len(live))
		}
		for _, p := range e.Processes {
			if p.PID == 0 {
				continue
			}
			here := fmt.Sprintf("%s:%d", e.Name, p.Slot)
			if other, twice := seen[p.PID]; twice {
				t.Errorf("pid %d is in %s and in %s", p.PID, other, here)
			}
			seen[p.PID] = here
		}
	}
}

// client talks HTTP over the control socket.
type client struct {
	http    *http.Client
	version uint64 // the highest state version seen
}

func newClient(socket string) *client {
	return &client{http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// do makes a request and returns the status and the body of the answer.
func (c *client) do(method, path, contentType, body string) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer), err
}

// post makes a request that changes something; body is JSON, or empty.
func (d *daemon) post(path, body string) (int, string) {
	d.t.Helper()
	contentType := ""
	if body != "" {
		contentType = "application/json"
	}
	status, answer, err := d.client.do(http.MethodPost, path, contentType, body)
	if err != nil {
		d.t.Fatalf("POST %s: %v\n%s", path, err, d)
	}
	return status, answer
}

// get returns the body of a 200. As over a re-exec a request may be cut, it
// tries again then; one that is refused fails the test.
func (d *daemon) get(path string) string {
	d.t.Helper()
	for {
		status, body, err := d.client.do(http.MethodGet, path, "", "")
		switch {
		case err == nil && status == http.StatusOK:
			return body
		case err == nil:
			d.t.Fatalf("GET %s: %d %s\n%s", path, status, body, d)
		case !wasCut(err):
			d.t.Fatalf("GET %s: %v\n%s", path, err, d)
		}
		d.alive()
	}
}

// wasCut says whether a connection ended in the middle of something.
func wasCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// alive fails the test if the daemon has ended.
func (d *daemon) alive() {
	d.t.Helper()
	select {
	case <-d.ended:
		d.t.Fatalf("the daemon has ended: %v\n%s", d.err, d)
	default:
	}
}

// state returns the present state.
func (d *daemon) state() *state {
	d.t.Helper()
	return d.decode(d.get("/v1/state"))
}

// decode reads a state, and holds its version to never fall.
func (d *daemon) decode(body string) *state {
	d.t.Helper()
	s := new(state)
	if err := json.Unmarshal([]byte(body), s); err != nil {
		d.t.Fatalf("the state: %v\n%s", err, body)
	}
	if s.Version < d.client.version {
		d.t.Fatalf("version %d after %d", s.Version, d.client.version)
	}
	d.client.version = s.Version
	return s
}

// await returns the first state of which ok is true, by long polls. A daemon
// that has not made its socket yet is waited for.
func (d *daemon) await(what string, ok func(*state) bool) *state {
	d.t.Helper()
	deadline := time.Now().Add(patience)
	d.listening(deadline)
	s := d.state()
	for !ok(s) {
		if time.Now().After(deadline) {
			text, _ := json.Marshal(s)
			d.t.Fatalf("after %v still not: %s\n%.8000s\n%s", patience, what, text, d)
		}
		s = d.decode(d.get("/v1/state?timeout=2s&after=" + strconv.FormatUint(s.Version, 10)))
	}
	return s
}

// listening waits until the control socket of a new daemon takes connections.
// The daemon says nothing when it does: this is the one thing that is asked
// for again and again.
func (d *daemon) listening(deadline time.Time) {
	d.t.Helper()
	socket := d.runtimeFile("control.sock")
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for d.client.version == 0 {
		c, err := net.Dial("unix", socket)
		if err == nil {
			// A child of a dead daemon that has not come to its program yet may
			// still have that one's socket.
			whose := listenerPID(d.t, c)
			c.Close()
			if whose == d.pid || d.wraps(whose) {
				return
			}
			err = fmt.Errorf("process %d listens", whose)
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("nobody listens after %v: %v\n%s", patience, err, d)
		}
		select {
		case <-again.C:
		case <-d.ended:
			d.t.Fatalf("the daemon ended at once: %v\n%s", d.err, d)
		}
	}
}

// wraps reports whether a process is a child of the daemon's program: of a script
// that starts it elsewhere.
func (d *daemon) wraps(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err == nil && strings.Contains(string(text), fmt.Sprintf("\nPPid:\t%d\n", d.pid))
}

// listenerPID is the process that made the socket to which a connection was made.
func listenerPID(t *testing.T, c net.Conn) (pid int) {
	t.Helper()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// settled waits until each slot of an entry runs or rests.
func (d *daemon) settled(name string) *state {
	d.t.Helper()
	return d.await(name+" is settled", func(s *state) bool {
		for _, p := range s.entry(name).Processes {
			if p.State == "starting" || p.State == "stopping" || p.State == "backoff" {
				return false
			}
		}
		return true
	})
}

// running waits until an entry has n slots and all of them run.
func (d *daemon) running(name string, n int) *state {
	d.t.Helper()
	return d.await(fmt.Sprintf("%d of %s are running", n, name), func(s *state) bool {
		e := s.entry(name)
		return e.Running == n && len(e.Processes) == n
	})
}

// metrics returns the samples of /metrics by their names and labels as they
// stand in the text, e.g. `sentryd_process_up{entry="a",slot="0"}`.
func (d *daemon) metrics() map[string]float64 {
	d.t.Helper()
	samples := map[string]float64{}
	for s := bufio.NewScanner(strings.NewReader(d.get("/metrics"))); s.Scan(); {
		name, value, ok := cutLast(s.Text(), " ")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			d.t.Fatalf("metrics: %q: %v", s.Text(), err)
		}
		samples[name] = v
	}
	return samples
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
