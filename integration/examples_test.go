package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sentryd/sentryd/internal/testenv"
)

// exampleSession copies examples/ to where a session may write, with ports of
// its own in the place of those that the files name.
func exampleSession(t *testing.T) *session {
	t.Helper()
	s := newSession(t)
	if err := os.CopyFS(s.dir, os.DirFS("../examples")); err != nil {
		t.Fatal(err)
	}
	cache, web, passed := freeAddress(t), freeAddress(t), freeAddress(t)
	port := func(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }
	for _, name := range []string{"quickstart.yaml", "web.yaml", "nginx/nginx.conf", "sockets.yaml"} {
		path := filepath.Join(s.dir, name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		ours := strings.NewReplacer(defaultListen, s.listen, "127.0.0.1:8090", web, "127.0.0.1:8091", passed, `"6390"`, `"`+port(cache)+`"`)
		if err := os.WriteFile(path, []byte(ours.Replace(string(text))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.env = append(s.env, "CACHE="+port(cache), "WEB=http://"+web, "PASSED=http://"+passed, "API=http://"+s.listen)
	return s
}

// TestExamplesAreValid checks every configuration in examples/.
func TestExamplesAreValid(t *testing.T) {
	s := exampleSession(t)
	configs, err := filepath.Glob(filepath.Join(s.dir, "*.yaml"))
	if err != nil || len(configs) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, c := range configs {
		if code, out := s.shell("sentryd check -c ./" + filepath.Base(c)); code != 0 {
			t.Errorf("%s: exit code %d\n%s", filepath.Base(c), code, strings.Join(out, "\n"))
		}
	}
}

// TestUnit holds the unit for systemd to what doc/operations.md says of it, and to
// itself: each key is there once, and the daemon is told of as many descriptors as
// systemd keeps.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile("../examples/sentryd.service")
	if err != nil {
		t.Fatal(err)
	}
	operations, err := os.ReadFile("../doc/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if old, twice := set[key]; twice {
			t.Errorf("%s is %q and %q", key, old, value)
		}
		set[key] = value
	}
	if most := set["FileDescriptorStoreMax"]; most == "" || set["Environment"] != "FDSTORE="+most {
		t.Errorf("systemd keeps %q descriptors, and says %q", most, set["Environment"])
	}
	said := 0
	for line := range strings.Lines(string(operations)) {
		if line, ok := strings.CutPrefix(line, "- `"); ok {
			key, value, _ := strings.Cut(line[:strings.IndexByte(line, '`')], "=")
			if key[0] < 'A' || key[0] > 'Z' || value == "" {
				continue
			}
			said++
			if set[key] != value {
				t.Errorf("%s is %q, and %q in the documentation", key, set[key], value)
			}
		}
	}
	if said < 5 {
		t.Errorf("only %d keys are explained", said)
	}
}

// TestQuickstart is what `make run` shows.
func TestQuickstart(t *testing.T) {
	s := exampleSession(t)
	s.start("sentryd start -c ./quickstart.yaml").expect(
		"Sentry started (PID: 1511 saved in /run/sentryd/quickstart/sentryd.pid).",
		"20:17:51 tick.1514        tick 1",
		"20:17:54 tick.1514        done",
		"20:17:54 tick.1514        Exited at 1334081875 with ExitSuccess.",
		"20:17:55 tick.1516        Started at 1334081876.",
		"20:17:55 tick.1516        tick 2",
	)
}

// TestWebExample runs a real redis and a real nginx, and uses them.
func TestWebExample(t *testing.T) {
	testenv.Need(t, testenv.Tool("curl"), testenv.Tool("redis-server"), testenv.Tool("redis-cli"), testenv.Tool("nginx"))
	s := exampleSession(t)
	out := s.start("sentryd start -c ./web.yaml")
	out.expect("Sentry started …", "…redis.1514 …Ready to accept connections…")
	for _, step := range []step{
		{command: "redis-cli -p $CACHE ping", want: []string{"PONG"}},
		{command: "curl -s --retry 20 --retry-connrefused --retry-delay 1 $WEB", want: []string{"hello from nginx"}},
		{command: "sentryd status -c ./web.yaml redis nginx >/dev/null"},
		{command: "sentryd stop -c ./web.yaml nginx >/dev/null"},
		{command: "curl -s $WEB", code: 7}, // nobody listens
		{command: "sentryd start -c ./web.yaml nginx >/dev/null"},
		{command: "curl -s --retry 20 --retry-connrefused --retry-delay 1 $WEB", want: []string{"hello from nginx"}},
	} {
		if code, got := s.shell(step.command); code != step.code || !matches(step.want, got) {
			t.Fatalf("$ %s\ngot exit code %d and\n%s\nthe daemon printed\n%s", step.command, code, strings.Join(got, "\n"), out)
		}
	}
}

// TestSocketsExample restarts and scales a server in Python, and stops it: its
// clients wait.
func TestSocketsExample(t *testing.T) {
	testenv.Need(t, testenv.Tool("curl"), testenv.Tool("python3"))
	s := exampleSession(t)
	out := s.start("sentryd start -c ./sockets.yaml")
	out.expect("Sentry started …", "…web.1514 …Started…")
	for _, step := range []step{
		{command: "curl -s $PASSED", want: []string{"hello from slot …, pid …"}},
		{command: "sentryd restart -c ./sockets.yaml web >/dev/null"},
		{command: "curl -s $PASSED", want: []string{"hello from slot …, pid …"}},
		{command: "sentryd scale -c ./sockets.yaml web=1 >/dev/null"},
		{command: "curl -s $PASSED", want: []string{"hello from slot 0, pid …"}},
		{command: "sentryd stop -c ./sockets.yaml web >/dev/null"},
		{command: "curl -s --max-time 0.2 $PASSED", code: 28}, // it waits, and gives up
		{command: "sentryd start -c ./sockets.yaml web >/dev/null"},
		{command: "curl -s $PASSED", want: []string{"hello from slot 0, pid …"}},
	} {
		if code, got := s.shell(step.command); code != step.code || !matches(step.want, got) {
			t.Fatalf("$ %s\ngot exit code %d and\n%s\nthe daemon printed\n%s", step.command, code, strings.Join(got, "\n"), out)
		}
	}
}
