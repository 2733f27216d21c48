package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// TestPrometheusScrapes runs a real Prometheus against the daemon.
func TestPrometheusScrapes(t *testing.T) {
	testenv.Need(t, testenv.Tool("prometheus"))
	d := startDaemon(t, `http: {listen: '127.0.0.1:0'}
entries:
  web: {command: sleep 1000, count: 2, delay: 50}
`, options{})
	d.running("web", 2)
	prometheus := startPrometheus(t, d.tcpAddress())

	// value asks for a vector until it has a sample that will do.
	value := func(query string, ok func(float64) bool) {
		t.Helper()
		eventually(t, query, func() error {
			v, err := prometheus.query(query)
			if err != nil {
				return err
			}
			if !ok(v) {
				return fmt.Errorf("it is %v", v)
			}
			return nil
		})
	}
	is := func(want float64) func(float64) bool { return func(v float64) bool { return v == want } }
	value(`up{job="sentryd"}`, is(1))
	value(`sum(sentryd_process_up{entry="web"})`, is(2))
	value(`sentryd_process_starts_total{entry="web"}`, is(2))
	value(`sentryd_entry_desired_processes{entry="web"}`, is(2))
	value(`sentryd_entry_processes{entry="web",state="running"}`, is(2))
	value(`sentryd_config_last_reload_successful`, is(1))
	up := 0.0
	if d.state().Daemon.ProcConnector.Up {
		up = 1
	}
	value(`sentryd_proc_connector_up`, is(up))

	if pid := d.state().process("web", 1).PID; !d.kill(pid, unix.SIGKILL) {
		t.Fatalf("%d was not there to kill\n%s", pid, d)
	}
	value(`sentryd_process_starts_total{entry="web"}`, is(3))
	value(`increase(sentryd_process_starts_total{entry="web"}[1m])`, func(v float64) bool { return v > 0 })
	value(`sentryd_process_exits_total{entry="web",reason="signaled",code="SIGKILL"}`, is(1))
	value(`histogram_quantile(0.5, sentryd_restart_latency_seconds_bucket)`, func(v float64) bool { return v >= 0 })

	// Counters go on over a re-exec: to Prometheus nothing was reset.
	d.reexec()
	value(`sentryd_reexecs_total{result="ok"}`, is(1))
	value(`sentryd_process_starts_total{entry="web"}`, is(3))
	value(`resets(sentryd_process_starts_total{entry="web"}[5m])`, is(0))
	for _, q := range documentedQueries(t) {
		if _, err := prometheus.samples(q); err != nil {
			t.Errorf("doc/metrics.md: %s: %v", q, err)
		}
	}
	d.must("scale", "web=1")
	value(`count(sentryd_process_up{entry="web"})`, is(1))
}

// prometheusServer is a running Prometheus.
type prometheusServer struct{ address string }

// startPrometheus runs Prometheus until the test ends, with a target.
func startPrometheus(t *testing.T, target string) *prometheusServer {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := "global: {scrape_interval: 100ms, scrape_timeout: 100ms}\nscrape_configs: [{job_name: sentryd, static_configs: [{targets: ['" + target + "']}]}]\n"
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p := &prometheusServer{address: freeAddress(t)}
	out := new(bytes.Buffer)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := commandIn(ctx, dir, testenv.LookTool("prometheus"), "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+p.address, "--log.level=warn")
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		cmd.Wait()
		if t.Failed() {
			t.Logf("prometheus:\n%s", out)
		}
	})
	return p
}

// query returns the value of the only sample that a query has.
func (p *prometheusServer) query(q string) (float64, error) {
	samples, err := p.samples(q)
	if err != nil {
		return 0, err
	}
	if len(samples) != 1 {
		return 0, fmt.Errorf("there are %d samples", len(samples))
	}
	return samples[0], nil
}

// samples returns the values of all samples that a query has.
func (p *prometheusServer) samples(q string) ([]float64, error) {
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct {
				Value [2]any // time, and the value as a string
			}
		}
	}
	if err := getJSON("http://"+p.address+"/api/v1/query?"+url.Values{"query": {q}}.Encode(), &answer); err != nil {
		return nil, err
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("%s: %s", answer.Status, answer.Error)
	}
	var values []float64
	for _, r := range answer.Data.Result {
		text, _ := r.Value[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

// documentedQueries returns the indented lines below "Alerts" of doc/metrics.md.
func documentedQueries(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile("../doc/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, alerts, _ := strings.Cut(string(page), "\n## Alerts")
	var queries []string
	for line := range strings.Lines(alerts) {
		if q, ok := strings.CutPrefix(line, "    "); ok {
			queries = append(queries, strings.TrimSpace(q))
		}
	}
	if len(queries) == 0 {
		t.Fatal("doc/metrics.md has no alerts")
	}
	return queries
}

// TestMetricsAreDocumented holds what /metrics has and what doc/metrics.md says,
// names, labels and types, to each other, and shows it to promtool.
func TestMetricsAreDocumented(t *testing.T) {
	d := startDaemon(t, `http: {listen: '127.0.0.1:0'}
entries:
  loop: {command: sh -c 'echo hello; exit 3', delay: 20}
  web: {command: sleep 1000, count: 2}
  absent: {command: /nonexistent/program}
`, options{})
	d.running("web", 2)
	d.await("everything has happened once", func(s *state) bool {
		return s.entry("loop").Exits > 2 && s.process("absent", 0).LastExit != nil
	})
	d.reexec()
	text := d.get("/metrics")

	documented, err := os.ReadFile("../doc/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	want, got := documentedMetrics(string(documented)), shownMetrics(text)
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if want[name] == "" {
			t.Errorf("%s %s is not in doc/metrics.md", name, got[name])
		}
	}
	witness := d.state().Daemon.ProcConnector.Up
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] == "" && (name == "sentryd_operation_failures_total" || name == "sentryd_proc_events_total" && !witness) {
			continue // has a series for what occurred
		}
		if got[name] != want[name] {
			t.Errorf("%s is %q, and %q in doc/metrics.md", name, got[name], want[name])
		}
	}
	for _, own := range []string{"go_goroutines", "process_open_fds", "process_cpu_seconds_total"} {
		if !strings.Contains(text, "\n"+own+" ") {
			t.Errorf("there is no %s", own)
		}
	}
	for _, forbidden := range []string{"instance=", "pid=", "pid=\""} {
		if strings.Contains(text, forbidden) {
			t.Errorf("there is a label %s", forbidden)
		}
	}
	if testenv.LookTool("promtool") != "" {
		if code, out := promtool(text, "check", "metrics"); code != 0 || out != "" {
			t.Errorf("promtool check metrics: exit code %d\n%s", code, out)
		}
	} else if os.Getenv("SENTRYD_FULL") != "" {
		t.Error("no promtool")
	}
}

// documentedMetrics reads the table of doc/metrics.md: names, and type and
// labels of each.
func documentedMetrics(page string) map[string]string {
	metrics := map[string]string{}
	name := regexp.MustCompile("`(sentryd_[a-z_]+)(?:\\{([a-z,]*)\\})?`")
	for line := range strings.Lines(page) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		for _, m := range name.FindAllStringSubmatch(cells[1], -1) {
			labels := strings.Split(m[2], ",")
			slices.Sort(labels)
			metrics[m[1]] = strings.TrimSpace(cells[2]) + " " + strings.Join(labels, ",")
		}
	}
	return metrics
}

// shownMetrics reads the text format in the same way.
func shownMetrics(text string) map[string]string {
	types, labels := map[string]string{}, map[string]map[string]bool{}
	sample := regexp.MustCompile(`^(sentryd_[a-z_]+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? `)
	label := regexp.MustCompile(`([a-z]+)="`)
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) == 4 && f[1] == "TYPE" && strings.HasPrefix(f[2], "sentryd_") {
			types[f[2]] = f[3]
			labels[f[2]] = map[string]bool{}
		}
		m := sample.FindStringSubmatch(s.Text())
		if m == nil {
			continue
		}
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			if l[1] != "le" && labels[m[1]] != nil {
				labels[m[1]][l[1]] = true
			}
		}
	}
	for name := range types {
		types[name] += " " + strings.Join(slices.Sorted(maps.Keys(labels[name])), ",")
	}
	return types
}

// commandIn is a command of a test, in a directory, ended with SIGTERM when the
// context is.
func commandIn(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = patience
	return cmd
}

// getJSON decodes what a URL answers.
func getJSON(address string, v any) error {
	resp, err := http.Get(address)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%d %s: %w", resp.StatusCode, body, err)
	}
	return nil
}

// promtool runs promtool on a text and returns its exit code and what it says.
func promtool(text string, args ...string) (int, string) {
	cmd := exec.Command(testenv.LookTool("promtool"), args...)
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	return exitCodeOf(err), string(out)
}
