package metrics

import (
	"flag"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/sentryd/sentryd/pkg/view"
)

var update = flag.Bool("update", false, "write the golden files")

// fakeProcesses is /proc: usage by pid.
type fakeProcesses map[int]usage

func (f fakeProcesses) Each(pids []int, do func(pid int, start uint64, user, system float64, rss int64, fds int)) {
	for _, pid := range pids {
		if u, ok := f[pid]; ok {
			do(pid, u.start, u.cpu.User, u.cpu.System, u.rss, u.fds)
		}
	}
}

// sample is a state in which every metric has a value.
func sample() *view.State {
	at := time.Unix(1334081871, 250_000_000)
	hist := view.Histogram{Bounds: []float64{0.1, 1, 10}, Counts: []uint64{1, 2, 0, 4}, Sum: 52.5}
	states := []view.LabelCount{}
	for _, s := range []string{view.Stopped, view.Starting, view.Running, view.Stopping, view.Backoff, view.Exited, view.Failed} {
		states = append(states, view.LabelCount{Label: s})
	}
	states[2].N, states[4].N = 2, 1
	return &view.State{
		Version: 42,
		Daemon: view.Daemon{
			Name: "sample", PID: 1511, Version: "1.2.3",
			ProcConnector:     view.ProcConnector{Up: true},
			Listeners:         []view.Listener{{Address: "127.0.0.1:8001", Up: true}, {Address: "[::1]:80", Error: "permission denied"}},
			LastReload:        view.Reload{At: at, OK: true, SuccessAt: &at},
			ReexecResults:     []view.LabelCount{{Label: "ok", N: 3}, {Label: "failed", N: 1}},
			ProcEvents:        []view.LabelCount{{Label: "fork", N: 100}, {Label: "exit", N: 99}},
			ProcEventsLost:    2,
			ProcResyncs:       1,
			ExitDetection:     hist,
			AdoptedProcesses:  5,
			EventQueueLength:  7,
			IgnoredEvents:     8,
			OutputDropped:     9,
			UnhandledFailures: []view.LabelCount{{Label: "pidfd_send_signal", N: 1}},
		},
		Entries: []*view.Entry{{
			Name: "web", Count: 3, State: view.Backoff, Running: 2, Ready: 1, Starts: 12, Exits: 10, Desired: 3, States: states,
			Processes: []*view.Process{
				{Slot: 0, Incarnation: 5, PID: 100, State: view.Running, Ready: true, StartedAt: &at},
				{Slot: 1, Incarnation: 5, PID: 101, State: view.Running, StartedAt: &at},
				{Slot: 2, Incarnation: 2, State: view.Backoff},
			},
			ExitCounts: []view.ExitCount{
				{Reason: view.ReasonExited, Code: "0", N: 5}, {Reason: view.ReasonExited, Code: "3", N: 2},
				{Reason: view.ReasonSignaled, Code: "SIGRTMIN+3", N: 2}, {Reason: view.ReasonUnknown, N: 1},
			},
			StartFailures:  []view.LabelCount{{Label: "ENOENT", N: 4}},
			Uptime:         hist,
			RestartLatency: hist,
			EndedCPU:       view.CPU{User: 10, System: 20},
			OOMKills:       2,
			Descendants:    6, Forks: 60, Execs: 50, Coredumps: 4,
			DescendantExits: []view.LabelCount{{Label: "success", N: 50}, {Label: "signaled", N: 4}},
			LogLines:        1000,
			LogBytes:        65536,
		}},
	}
}

func sampleProcesses() fakeProcesses {
	return fakeProcesses{
		100: {start: 1, cpu: view.CPU{User: 1, System: 2}, rss: 1 << 20, fds: 5},
		101: {start: 1, cpu: view.CPU{User: 0.5, System: 0.25}, rss: 2 << 20, fds: -1},
	}
}

func scrape(t testing.TB, load func() *view.State, p Processes) string {
	t.Helper()
	w := httptest.NewRecorder()
	New(load, p).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func load(s *view.State) func() *view.State { return func() *view.State { return s } }

// only returns the lines that are of sentryd itself.
func only(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE "), "sentryd_") &&
			!strings.HasPrefix(line, "sentryd_build_info") { // has the version of Go
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestGolden holds every name, type, help text and label: they are a contract.
func TestGolden(t *testing.T) {
	got := only(scrape(t, load(sample()), sampleProcesses()))
	path := filepath.Join("testdata", "metrics.golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Error(d)
	}
	c := NewCollector(load(sample()), sampleProcesses())
	for _, d := range c.all {
		// A metric that the sample leaves out would not be held by the file.
		name := strings.Split(d.String(), `"`)[1]
		if name != "sentryd_build_info" && !strings.Contains(got, "# TYPE "+name+" ") {
			t.Errorf("%s is not in the sample", name)
		}
	}
}

func TestLint(t *testing.T) {
	text := scrape(t, load(sample()), sampleProcesses())
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestOfTheDaemonItself(t *testing.T) {
	text := scrape(t, load(sample()), sampleProcesses())
	for _, want := range []string{
		"\ngo_goroutines ", "\nprocess_resident_memory_bytes ", "\nprocess_open_fds ",
		`sentryd_build_info{goversion="go1.`, `version="1.2.3"} 1`, "promhttp_metric_handler_errors_total{cause=\"gathering\"} 0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
}

// TestEmpty: a daemon that has just started, with nothing to run.
func TestEmpty(t *testing.T) {
	text := only(scrape(t, load(&view.State{}), fakeProcesses{}))
	for _, want := range []string{"sentryd_proc_connector_up 0\n", "sentryd_config_last_reload_successful 0\n", "sentryd_exit_detection_seconds_count 0\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	if strings.Contains(text, "entry=") {
		t.Errorf("series of an entry: %s", text)
	}
}

func TestSeriesGoWithTheEntry(t *testing.T) {
	s := sample()
	c := NewCollector(func() *view.State { return s }, sampleProcesses())
	if n := strings.Count(gather(t, c), `entry="web"`); n == 0 {
		t.Fatal("no series")
	}
	s = &view.State{}
	if text := gather(t, c); strings.Contains(text, "web") {
		t.Errorf("series left: %s", text)
	}
	if len(c.cpu) != 0 {
		t.Errorf("kept: %v", c.cpu)
	}
}

// gather returns what a collector sends, a metric a line.
func gather(t testing.TB, c prometheus.Collector) string {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		for _, m := range f.Metric {
			fmt.Fprintf(&b, "%s", f.GetName())
			for _, l := range m.Label {
				fmt.Fprintf(&b, " %s=%q", l.GetName(), l.GetValue())
			}
			fmt.Fprintf(&b, " %v\n", m.GetCounter().GetValue()+m.GetGauge().GetValue())
		}
	}
	return b.String()
}

// TestOddNames: every name that the configuration allows is a good label, and
// what should never come does not cost the rest.
func TestOddNames(t *testing.T) {
	names := []string{"0", "a-b.c_d", "A" + strings.Repeat("z", 62), "NaN", "1e9", "x..", "__"}
	s := &view.State{}
	for _, name := range names {
		e := *sample().Entries[0]
		e.Name = name
		s.Entries = append(s.Entries, &e)
	}
	text := gather(t, NewCollector(load(s), sampleProcesses()))
	for _, name := range names {
		if !strings.Contains(text, fmt.Sprintf("sentryd_process_starts_total entry=%q 12\n", name)) {
			t.Errorf("no series of %q", name)
		}
	}
	s.Entries[0].StartFailures = []view.LabelCount{{Label: "\xff", N: 1}}
	full := scrape(t, load(s), sampleProcesses())
	if !strings.Contains(full, `sentryd_process_starts_total{entry="NaN"} 12`) {
		t.Error("one bad label hides the rest")
	}
}

func TestConcurrentScrapes(t *testing.T) {
	h := New(load(sample()), sampleProcesses())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
				if w.Code != 200 {
					t.Errorf("status %d", w.Code)
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkScrape answers a scrape of 10,000 slots.
func BenchmarkScrape(b *testing.B) {
	const entries, slots = 100, 100
	at := time.Unix(1334081871, 0)
	s, procs := &view.State{}, fakeProcesses{}
	for i := range entries {
		e := *sample().Entries[0]
		e.Name = fmt.Sprintf("entry-%d", i)
		e.Processes = nil
		for slot := range slots {
			pid := 1000 + i*slots + slot
			procs[pid] = usage{rss: 1 << 20, fds: 4}
			e.Processes = append(e.Processes, &view.Process{Slot: slot, PID: pid, Incarnation: 1, State: view.Running, StartedAt: &at})
		}
		s.Entries = append(s.Entries, &e)
	}
	slices.SortFunc(s.Entries, func(a, b *view.Entry) int { return strings.Compare(a.Name, b.Name) })
	h := New(load(s), procs)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		n, err := io.Copy(io.Discard, w.Body)
		if err != nil || n < 10_000 {
			b.Fatal(n, err)
		}
	}
}
