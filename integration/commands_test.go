package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"

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
		{"help stats", 2, "", "sentryd: unknown command \"stats\" for \"sentryd\": did you mean start or status?\nTry 'sentryd help --help'.\n"},
		{"stop web --timeout 0", 2, "", "sentryd: invalid argument \"0\" for \"--timeout\" flag: not above 0\nTry 'sentryd stop --help'.\n"},
		{"stop --timeout -1s", 2, "", "sentryd: invalid argument \"-1s\" for \"--timeout\" flag: not above 0\nTry 'sentryd stop --help'.\n"},
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

// TestStoppedDaemon: a daemon that was sent SIGSTOP takes connections and answers none.
// No command waits for it for longer than it may, and nothing comes of any.
func TestStoppedDaemon(t *testing.T) {
	d := startDaemon(t, several, options{})
	ids := d.identities(d.running("web", 2).entry("web"))
	d.signal(unix.SIGSTOP)
	if err := unix.Waitid(unix.P_PIDFD, d.pidfd, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("sentryd: the daemon (PID %d) does not answer within 200ms\n", d.pid)
	for _, args := range []string{"stop web", "stop web --no-wait", "stop", "stop --keep", "start worker", "restart web", "scale web=3", "reload"} {
		if code, out, errs := d.ctl(append(strings.Fields(args), "--timeout", "200ms")...); code != 1 || out != "" || errs != want {
			t.Errorf("sentryd %s: exit code %d\n%s%swant exit code 1\n%s", args, code, out, errs, want)
		}
	}
	d.signal(unix.SIGCONT)
	d.same(ids, d.state().entry("web"))
}

// TestReloadInUse: one entry of a new configuration does not come up. What was changed is
// printed all the same.
func TestReloadInUse(t *testing.T) {
	d := startDaemon(t, "entries: {a: {command: sleep 1000}}\n", options{})
	d.configure("entries:\n  a: {command: sleep 1000}\n  bad: {command: /nope}\n  good: {command: sleep 1000}\n")
	const changes = "add      bad\nadd      good\n"
	const amiss = "sentryd: the new configuration is in use, but not all that it changes is done\n" +
		"sentryd: bad:0: start failed: exec /nope: no such file or directory\n"
	if code, out, errs := d.ctl("reload"); code != 1 || out != changes || errs != amiss {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	d.running("good", 1)
}

// TestScaleBesideBackoff: a slot that waits for its delay, as it did before, does not hold
// up a scale, by a command or by a reload.
func TestScaleBesideBackoff(t *testing.T) {
	const config = "entries: {a: {command: \"sh -c '[ $SENTRYD_SLOT = 0 ] && exit 1; sleep 1000'\", delay: 1h, count: %d}}\n"
	d := startDaemon(t, fmt.Sprintf(config, 2), options{})
	d.await("one waits and one runs", func(s *state) bool {
		return s.process("a", 0).State == "backoff" && s.entry("a").Running == 1
	})
	if code, out, errs := d.ctl("scale", "a=3"); code != 0 || out != "a: 2 running, 1 backoff\n" || errs != "" {
		t.Errorf("scale: exit code %d\n%s%s", code, out, errs)
	}
	d.configure(fmt.Sprintf(config, 4))
	if code, out, errs := d.ctl("reload"); code != 0 || !strings.HasPrefix(out, "scale    a (") || errs != "" {
		t.Errorf("reload: exit code %d\n%s%s", code, out, errs)
	}
	if p := d.state().process("a", 3); p.State != "running" {
		t.Errorf("slot 3 is %s", p.State)
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
