package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// several is a configuration with an entry in most of the states.
const several = `entries:
  web: {command: sleep 1000, count: 2}
  worker: {command: sleep 1000, autostart: false}
  once: {command: "true", restart: never}
  bad: {command: sh -c 'exit 3', restart: never}
`

// An invocation is a command, and what it ends with and prints.
type invocation struct {
	args string // split at blanks
	code int
	out  string // all of standard output
	errs string // all of standard error
}

// TestCommands walks through the commands with their exit codes and output.
func TestCommands(t *testing.T) {
	d := startDaemon(t, several, options{})
	d.await("everything is settled", func(s *state) bool {
		return s.entry("web").Running == 2 && s.entry("once").State == "exited" && s.entry("bad").State == "exited"
	})
	config := d.configPath()
	for _, c := range []invocation{
		{"start worker", 0, "worker: running\n", ""},
		{"start worker", 0, "worker: running\n", ""}, // it is already
		{"stop web:0", 0, "web:0: stopped\n", ""},
		{"stop web:0", 0, "web:0: stopped\n", ""},
		{"start web:0", 0, "web:0: running\n", ""},
		{"restart web", 0, "web: 2 running\n", ""},
		{"restart web --all-at-once", 0, "web: 2 running\n", ""},
		{"restart w*:0", 0, "web:0: running\nworker:0: running\n", ""},
		{"restart web --no-wait", 0, "", ""},
		{"scale web=3", 0, "web: 3 running\n", ""},
		{"scale web=1 worker=2", 0, "web: running\nworker: 2 running\n", ""},
		{"scale web=0", 0, "web: no slots\n", ""},
		{"scale web=2", 0, "web: 2 running\n", ""},
		{"stop web worker", 0, "web: 2 stopped\nworker: 2 stopped\n", ""},
		{"scale web=3", 0, "web: 3 stopped\n", ""}, // a stop holds
		{"start web", 0, "web: 3 running\n", ""},
		{"signal CONT web", 0, "", ""},
		{"signal sigusr9 web", 2, "", "sentryd: unknown signal \"sigusr9\": did you mean \"USR1\"?\n"},
		{"signal TERM worker", 1, "", "sentryd: worker: no process to signal: worker is not running\n"},
		{"diff", 0, "keep     bad\nkeep     once\nkeep     web\nkeep     worker\n", ""},
		{"check", 0, config + ": ok, 4 entries\n", ""},
		{"reload", 0, "nothing changed\n", ""},

		{"start nope", 1, "", "sentryd: nope: no such entry\n"},
		{"stop web:7", 1, "", "sentryd: web:7: no such slot\n"},
		{"restart x*", 1, "", "sentryd: x*: no such entry\n"},
		{"scale nope=1", 1, "", "sentryd: nope: no such entry\n"},
		{"signal HUP nope", 1, "", "sentryd: nope: no such entry\n"},
		{"status nope", 4, "", "sentryd: nope: no such entry\n"},
		{"status web:7", 4, "", "sentryd: web:7: no such slot\n"},

		{"scale web=017", 2, "", "sentryd: \"web=017\": write NAME=N, N from 0 to 10000\n"},
		{"scale web", 2, "", "sentryd: \"web\": write NAME=N, N from 0 to 10000\n"},
		{"restart", 2, "", "sentryd: requires at least 1 arg(s), only received 0\nTry 'sentryd restart --help'.\n"},
		{"stop --keep web", 2, "", "sentryd: --keep is for the daemon: it goes without a NAME\n"},
		{"strat", 2, "", "sentryd: unknown command \"strat\" for \"sentryd\": did you mean start?\nTry 'sentryd --help'.\n"},
		{"status --frob", 2, "", "sentryd: unknown flag: --frob\nTry 'sentryd status --help'.\n"},
		{"status -o xml", 2, "", "sentryd: --output: \"xml\" is not json\n"},
		{"completion", 2, "", "sentryd: no shell is named\nTry 'sentryd completion --help'.\n"},
		{"", 2, "", "sentryd: no command\nTry 'sentryd --help'.\n"},
	} {
		code, out, errs := d.ctl(strings.Fields(c.args)...)
		if code != c.code || out != c.out || errs != c.errs {
			t.Errorf("sentryd %s: exit code %d\n%s%swant exit code %d\n%s%s", c.args, code, out, errs, c.code, c.out, c.errs)
		}
		if strings.Contains(c.args, "--no-wait") {
			d.running("web", 2)
			d.settled("web")
		}
	}
}

// TestStatusExitCodes are what scripts go by.
func TestStatusExitCodes(t *testing.T) {
	d := startDaemon(t, several, options{})
	d.await("everything is settled", func(s *state) bool {
		return s.entry("web").Running == 2 && s.entry("once").State == "exited" && s.entry("bad").State == "exited"
	})
	status := func(want int, names ...string) {
		t.Helper()
		if code, out, errs := d.ctl(append([]string{"status"}, names...)...); code != want {
			t.Errorf("status %v: exit code %d, want %d\n%s%s", names, code, want, out, errs)
		}
	}
	status(0) // all that is wanted is up: bad ended for good
	status(0, "web")
	status(0, "web", "once:0")
	status(3, "worker")
	status(3, "bad")
	status(3, "w*")
	status(3, "*")
	d.must("stop", "web:1")
	status(0)
	status(3, "web")
	status(0, "web:0")
	status(3, "web:1")
	d.configure(several + "  broken: {command: /nonexistent/program, delay: 60000}\n")
	if code, out, errs := d.ctl("reload"); code != 1 || !strings.Contains(errs, "broken:0: start failed: exec /nonexistent/program: no such file or directory") {
		t.Errorf("reload with what cannot start: exit code %d\n%s%s", code, out, errs)
	}
	status(3)
	status(3, "broken")
	status(0, "web:0")
	d.must("start", "web:1")
	status(0, "web")
	d.must("stop", "broken")
	status(0)
}

// TestStatusTable is what people read.
func TestStatusTable(t *testing.T) {
	d := startDaemon(t, several, options{})
	d.await("everything is settled", func(s *state) bool {
		return s.entry("web").Running == 2 && s.entry("once").State == "exited" && s.entry("bad").State == "exited"
	})
	d.must("stop", "web:1")
	want := strings.Split(`test: pid 1511, up 12s, …/test.yaml, sentryd …
! No containment: a stop reaches the process group of a child, not descendants that left it.
NAME      STATE    PID    UPTIME  INC  NEXT  LAST EXIT
bad:0     exited   -      -       1    -     exited with code 3, 1s ago
once:0    exited   -      -       1    -     exited with code 0, 1s ago
web:0     running  21511  1s      1    -     -
web:1     stopped  -      -       1    -     ended by SIGTERM (command), 0s ago
worker:0  stopped  -      -       0    -     -`, "\n")
	if out := d.must("status"); !matches(want, strings.Split(strings.TrimSuffix(out, "\n"), "\n")) {
		t.Errorf("status prints\n%s", out)
	}
}

// TestStateIsAsDocumented: `status -o json` and GET /v1/state have every field
// of the example in doc/http.md, with values of the same kind.
func TestStateIsAsDocumented(t *testing.T) {
	page, err := os.ReadFile("../doc/http.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```json\n")
	example, _, _ := strings.Cut(rest, "```")
	var want any
	if err := json.Unmarshal([]byte(example), &want); err != nil {
		t.Fatalf("the example in doc/http.md: %v", err)
	}
	d := startDaemon(t, "entries: {dummy: {command: sh -c 'exit 3', delay: 60000}}\n", options{})
	d.await("it has ended", func(s *state) bool { return s.entry("dummy").State == "backoff" })
	_, status, _ := d.ctl("status", "-o", "json")
	for what, text := range map[string]string{"status -o json": status, "GET /v1/state": d.get("/v1/state")} {
		var got any
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%s: %v\n%s", what, err, text)
		}
		sameShape(t, what, want, got)
		sameShape(t, "doc/http.md", got, want)
	}
	one := new(entryState)
	if err := json.Unmarshal([]byte(d.get("/v1/entries/dummy")), one); err != nil || one.Name != "dummy" || len(one.Processes) != 1 {
		t.Errorf("GET /v1/entries/dummy: %v, %+v", err, one)
	}
	_, picked, _ := d.ctl("status", "-o", "json", "dummy:0")
	if s := d.decode(picked); len(s.Entries) != 1 || s.Daemon.PID != d.pid {
		t.Errorf("status -o json dummy:0:\n%s", picked)
	}
}

// sameShape checks that got has the fields of want, and values of the same kind
// in them where both have one.
func sameShape(t *testing.T, where string, want, got any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		fields, ok := got.(map[string]any)
		if !ok && got != nil {
			t.Errorf("%s is no object: %v", where, got)
		}
		for name, v := range want {
			field, there := fields[name]
			if ok && !there {
				t.Errorf("%s.%s is missing", where, name)
			}
			sameShape(t, where+"."+name, v, field)
		}
	case []any:
		list, ok := got.([]any)
		if !ok && got != nil {
			t.Errorf("%s is no list: %v", where, got)
		}
		if len(want) > 0 && len(list) > 0 {
			sameShape(t, where+"[0]", want[0], list[0])
		}
	case nil:
	default:
		if got != nil && fmt.Sprintf("%T", got) != fmt.Sprintf("%T", want) {
			t.Errorf("%s is %v, and %v in the other", where, got, want)
		}
	}
}

// TestNoDaemon: exit code 7, from every command that needs one.
func TestNoDaemon(t *testing.T) {
	d := newDaemon(t, several, options{})
	for _, args := range []string{
		"start web", "stop", "stop --keep", "stop web", "restart web", "reload", "diff", "scale web=1", "status", "status web", "signal HUP web",
	} {
		want := "sentryd: no daemon running: nothing listens on " + d.runtimeFile("control.sock") + "\n"
		if code, out, errs := d.ctl(strings.Fields(args)...); code != 7 || out != "" || errs != want {
			t.Errorf("sentryd %s: exit code %d\n%s%s", args, code, out, errs)
		}
	}
	if code, _, _ := d.ctl("check"); code != 0 {
		t.Errorf("check needs a daemon: exit code %d", code)
	}
}

// TestWhichDaemon: -s and SENTRYD_SOCKET go before -c.
func TestWhichDaemon(t *testing.T) {
	a := startDaemon(t, "entries: {a: {command: sleep 1000}}\n", options{name: "a"})
	b := startDaemon(t, "entries: {b: {command: sleep 1000}}\n", options{name: "b"})
	a.running("a", 1)
	b.running("b", 1)
	for _, c := range []struct {
		env  []string
		args []string
		code int
	}{
		{nil, []string{"status", "-c", a.configPath(), "a"}, 0},
		{nil, []string{"status", "-c", "a", "a"}, 0}, // a name: the configuration is not looked for
		{nil, []string{"status", "-c", "b", "a"}, 7},
		{nil, []string{"status", "-c", "a", "-s", b.runtimeFile("control.sock"), "b"}, 0},
		{[]string{"SENTRYD_SOCKET=" + b.runtimeFile("control.sock")}, []string{"status", "-c", "a", "b"}, 0},
		{[]string{"SENTRYD_SOCKET=/nonexistent"}, []string{"status", "-s", b.runtimeFile("control.sock"), "b"}, 0},
		{nil, []string{"status", "-c", "b", "--runtime-dir", b.run, "b"}, 0},
		{[]string{"SENTRYD_RUNTIME_DIR=" + b.run}, []string{"status", "-c", "b", "b"}, 0},
	} {
		cmd := exec.Command(a.cli, c.args...)
		cmd.Dir, cmd.Env = a.dir, append(a.env, c.env...)
		if out, err := cmd.CombinedOutput(); exitCodeOf(err) != c.code {
			t.Errorf("%v sentryd %v: %v\n%s", c.env, c.args, err, out)
		}
	}
}

// TestBadStarts: the daemon's own exit codes, before it runs.
func TestBadStarts(t *testing.T) {
	d := newDaemon(t, "entries: {}\n", options{})
	for _, c := range []struct {
		config, want string
		args         []string
		code         int
	}{
		{"", "test.yaml:1: the file is empty: it needs at least \"entries: {}\"", nil, 2},
		{"http: {listen: none}\n", "entries", nil, 2},
		{"entries: {}\n---\nentries: {}\n", "test.yaml:2: ", nil, 2},
		{"entries: {}\n", "--log.format: \"xml\" is not logfmt or json", []string{"--log.format", "xml"}, 2},
		{"entries: {}\n", "control socket", []string{"--runtime-dir", d.dir + "/" + strings.Repeat("long/", 40)}, 1},
	} {
		replaceFile(t, d.configPath(), c.config, 0o644)
		code, out, errs := d.ctl(append([]string{"start"}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.want) || strings.Contains(out, "Sentry started") {
			t.Errorf("start of %q %v: exit code %d, want %d\n%s%s", c.config, c.args, code, c.code, out, errs)
		}
	}
	if code, out := d.runAs(nil, d.cli, "start", "-c", "no-such-configuration"); code != 2 || !strings.HasPrefix(out, "sentryd: ") {
		t.Errorf("start of no configuration: exit code %d\n%s", code, out)
	}
}

// TestEveryMistakeIsReported runs `sentryd check` on the configurations that
// pkg/config's tests have.
func TestEveryMistakeIsReported(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bad")
	if err := os.CopyFS(dir, os.DirFS("../pkg/config/testdata/bad")); err != nil {
		t.Fatal(err)
	}
	configs, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(configs) == 0 {
		t.Fatalf("no configurations: %v", err)
	}
	bin := docsBinary(t)
	for _, c := range configs {
		want, err := os.ReadFile(strings.TrimSuffix(c, ".yaml") + ".want")
		if err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"check", "start"} {
			cmd := exec.Command(bin, command, "-c", c)
			var out, errs strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &errs
			code := exitCodeOf(cmd.Run())
			if got := strings.ReplaceAll(errs.String(), dir+"/", ""); code != 2 || out.String() != "" || got != string(want) {
				t.Errorf("%s of %s: exit code %d\n%s%swant\n%s", command, filepath.Base(c), code, out.String(), got, want)
			}
		}
	}
}

// TestDiffAndReloadSayTheSame: every action, in one change.
func TestDiffAndReloadSayTheSame(t *testing.T) {
	d := startDaemon(t, `entries:
  kept: {command: sleep 1000}
  scaled: {command: sleep 1000}
  updated: {command: sleep 1000}
  restarted: {command: sleep 1000}
  removed: {command: sleep 1000}
`, options{})
	d.running("removed", 1)
	d.configure(`control: {users: [nobody]}
entries:
  kept: {command: sleep 1000}
  scaled: {command: sleep 1000, count: 3}
  updated: {command: sleep 1000, delay: 2s, stop: {timeout: 1s}}
  restarted: {command: sleep 1001, environment: {A: b}}
  added: {command: sleep 1000}
`)
	const changes = `daemon   control.users
add      added
remove   removed
restart  restarted (command, environment)
scale    scaled (1 to 3)
update   updated (delay, stop)
`
	kept := strings.Replace(changes, "remove ", "keep     kept\nremove ", 1)
	if out := d.must("diff"); out != kept {
		t.Errorf("diff prints\n%swant\n%s", out, kept)
	}
	var diff struct {
		Changed bool
		Daemon  []string
		Entries []struct {
			Name, Action string
			Keys         []string
			From, To     *int
		}
	}
	if err := json.Unmarshal([]byte(d.must("diff", "-o", "json")), &diff); err != nil || !diff.Changed || len(diff.Entries) != 6 {
		t.Errorf("diff -o json: %v, %+v", err, diff)
	}
	if out := d.must("reload"); out != changes {
		t.Errorf("reload prints\n%swant\n%s", out, changes)
	}
	// It has waited for all of it.
	s := d.state()
	if s.entry("scaled").Running != 3 || s.entry("added").Running != 1 || s.entry("removed").Name != "" ||
		s.entry("restarted").State != "running" || s.entry("restarted").Command[1] != "1001" {
		t.Errorf("after the reload the state is %+v", s)
	}
	d.configure("entries: {kept: {command: sleep 1000, delya: 5}}\n")
	want := fmt.Sprintf("sentryd: refused, nothing has changed:\n%s:2: entries.kept: unknown key \"delya\": did you mean \"delay\"?\n", d.configPath())
	for _, command := range []string{"diff", "reload"} {
		if code, out, errs := d.ctl(command); code != 2 || out != "" || errs != want {
			t.Errorf("%s: exit code %d\n%s%s", command, code, out, errs)
		}
	}
	if code, _, errs := d.ctl("check"); code != 2 || errs != strings.SplitAfterN(want, "\n", 2)[1] {
		t.Errorf("check: exit code %d\n%s", code, errs)
	}
}

// TestStatusOfManySlots: a thousand slots are shown before anybody has had time
// to wonder.
func TestStatusOfManySlots(t *testing.T) {
	d := startDaemon(t, "entries: {web: {command: sleep 1000, count: 1000, autostart: false}}\n", options{})
	best := time.Hour
	for range 5 {
		began := time.Now()
		code, out, errs := d.ctl("status")
		best = min(best, time.Since(began))
		if code != 0 || strings.Count(out, "\nweb:") != 1000 {
			t.Fatalf("exit code %d\n%.2000s%s", code, out, errs)
		}
	}
	t.Logf("status of 1,000 slots: %v", best)
	if best > time.Second {
		t.Errorf("status of 1,000 slots takes %v", best)
	}
}

// TestStatusWatch shows each change, and ends with the daemon.
func TestStatusWatch(t *testing.T) {
	d := startDaemon(t, "entries: {web: {command: sleep 1000}}\n", options{})
	d.running("web", 1)
	out := newTranscript(t, d.run)
	cmd := exec.Command(d.cli, "-c", d.configPath(), "status", "--watch")
	cmd.Env, cmd.Stdout, cmd.Stderr = d.env, out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Wait()
		out.close()
	}()
	out.expect("web:0 running 1511 1s 1 - -")
	d.must("scale", "web=2")
	out.expect("web:1 running 1511 1s 1 - -")
	d.reexec()
	d.must("stop", "web:1")
	out.expect("web:1 stopped - - 1 - ended by SIGTERM (command), 0s ago")
	d.stop()
	if code := exitCodeOf(<-ended); code != 7 {
		t.Errorf("exit code %d once the daemon is gone\n%s", code, out)
	}
}

// TestCompletion: the scripts are ones that the shells take, and names come from
// the running daemon.
func TestCompletion(t *testing.T) {
	d := startDaemon(t, several, options{})
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script := d.must("completion", shell)
		if !strings.Contains(script, "sentryd") {
			t.Errorf("%s: %q", shell, script)
		}
		if testenv.LookTool(shell) == "" {
			continue
		}
		cmd := exec.Command(shell, "-n")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s -n: %v\n%s", shell, err, out)
		}
	}
	if out := d.must("__complete", "stop", ""); !strings.HasPrefix(out, "bad\nonce\nweb\nworker\n:") {
		t.Errorf("names to stop: %q", out)
	}
}

// TestColours: on a terminal, unless NO_COLOR or a dumb terminal forbids.
func TestColours(t *testing.T) {
	d := startDaemon(t, several, options{})
	d.running("web", 2)
	const escape = "\x1b["
	for _, c := range []struct {
		env     string
		colours bool
	}{{"TERM=xterm", true}, {"NO_COLOR=1", false}, {"TERM=dumb", false}} {
		out := onTerminal(t, append(d.env, "TERM=xterm", c.env), d.cli, "-c", d.configPath(), "status", "web")
		if strings.Contains(out, escape) != c.colours || !strings.Contains(out, "web:1") {
			t.Errorf("with %s: %q", c.env, out)
		}
	}
	if out := d.must("status"); strings.Contains(out, escape) {
		t.Errorf("not on a terminal: %q", out)
	}
	d.stop()

	// The daemon itself: a colour an entry. What a child writes stays harmless.
	replaceFile(t, d.configPath(), "http: {listen: none}\nentries: {web: {command: [sh, -c, \"printf '\\\\033]0;owned\\\\007\\\\n'; exec sleep 1000\"]}}\n", 0o644)
	var lines string
	terminal(t, append(d.env, "TERM=xterm"), func(screen io.Reader) {
		buffer := make([]byte, 4096)
		for !strings.Contains(lines, "owned") {
			n, err := screen.Read(buffer)
			if err != nil {
				t.Errorf("the terminal: %v\n%q", err, lines)
				return
			}
			lines += string(buffer[:n])
		}
		d.must("stop")
	}, d.cli, "start", "-c", d.configPath())
	if !strings.Contains(lines, escape) || strings.Contains(lines, "\x1b]0;") {
		t.Errorf("on a terminal start prints %q", lines)
	}
}

// onTerminal runs a program on a terminal of its own and returns what it shows.
func onTerminal(t *testing.T, env []string, args ...string) string {
	t.Helper()
	var text []byte
	terminal(t, env, func(screen io.Reader) {
		// EIO is the end: nobody has the terminal open any more (pty(7)).
		text, _ = io.ReadAll(screen)
	}, args...)
	return string(text)
}

// terminal runs a program on a pseudo-terminal, whose screen show reads, and
// waits for its end.
func terminal(t *testing.T, env []string, show func(screen io.Reader), args ...string) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, tty, tty
	err = cmd.Start()
	tty.Close()
	if err != nil {
		t.Fatal(err)
	}
	show(screen)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%q: %v", args, err)
	}
}

// TestMonitoringRoutes are what Prometheus' own tools and load balancers ask.
func TestMonitoringRoutes(t *testing.T) {
	d := startDaemon(t, "http: {listen: '127.0.0.1:0'}\nentries: {web: {command: sleep 1000}}\n", options{})
	d.running("web", 1)
	for _, c := range []*http.Client{clientAs(t, nil, d.tcpAddress()), clientAs(t, nil, d.runtimeFile("control.sock"))} {
		for _, path := range []string{"/-/healthy", "/-/ready"} {
			if status, body := d.send(c, request{method: "GET", path: path}); status != http.StatusOK {
				t.Errorf("%s: %d %s", path, status, body)
			}
		}
		before := d.state().Daemon.Reexecs
		if status, body := d.send(c, request{method: "POST", path: "/-/reload"}); status/100 != 2 {
			t.Errorf("POST /-/reload: %d %s", status, body)
		}
		d.await("a re-exec", func(s *state) bool { return s.Daemon.Reexecs > before })
	}
}
