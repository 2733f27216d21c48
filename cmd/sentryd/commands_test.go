package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentryd/sentryd/pkg/view"
)

func TestCommandLines(t *testing.T) {
	three := []*view.Entry{entry("api", view.Running), entry("web", view.Running, view.Running), entry("worker", view.Stopped)}
	for _, test := range []struct {
		line string
		code int
		want []string // calls
		out  string   // all of standard output
		err  string   // in standard error
	}{
		{"start worker", 0, []string{"start worker -1"}, "worker: stopped\n", ""},
		{"start web api", 0, []string{"start web -1", "start api -1"}, "web: 2 running\napi: running\n", ""},
		{"stop web:1", 0, []string{"stop web 1"}, "web:1: running\n", ""},
		{"stop w* web", 0, []string{"stop web -1", "stop worker -1"}, "web: 2 running\nworker: stopped\n", ""},
		{"stop *:1", 0, []string{"stop web 1"}, "web:1: running\n", ""},
		{"restart web", 0, []string{"restart web -1 1"}, "web: 2 running\n", ""},
		{"restart web --all-at-once --no-wait", 0, []string{"restart web -1 0"}, "", ""},
		{"scale web=2 api=1", 0, []string{"scale web 2", "scale api 1"}, "web: 2 running\napi: running\n", ""},
		{"scale w*=0 --no-wait", 0, []string{"scale web 0", "scale worker 0"}, "", ""},
		{"signal HUP web", 0, []string{"signal web -1 1"}, "", ""},
		{"signal sigrtmin+1 web:0", 0, []string{"signal web 0 35"}, "", ""},
		{"diff", 0, []string{"diff"}, "daemon   http.listen\nkeep     api\nscale    web (2 to 3)\nrestart  worker (command, environment)\n", ""},
		{"reload --no-wait", 0, []string{"reload"}, "daemon   http.listen\nscale    web (2 to 3)\nrestart  worker (command, environment)\n", ""},
		{"stop --no-wait", 0, []string{"shutdown false"}, "", ""},
		{"stop --keep --no-wait", 0, []string{"shutdown true"}, "", ""},

		{"start nope", 1, nil, "", "sentryd: nope: no such entry\n"},
		{"stop web:7", 1, nil, "", "sentryd: web:7: no such slot\n"},
		{"stop web nope also", 1, nil, "", "sentryd: nope: no such entry\nsentryd: also: no such entry\n"},
		{"restart x*", 1, nil, "", "sentryd: x*: no such entry\n"},
		{"restart", 2, nil, "", "Try 'sentryd restart --help'"},
		{"stop web:x", 2, nil, "", `sentryd: "web:x": a slot is a number from 0`},
		{"stop [", 2, nil, "", `sentryd: "[" is not a pattern`},
		{"stop --keep web", 2, nil, "", "--keep is for the daemon"},
		{"scale web", 2, nil, "", `"web": write NAME=N, N from 0 to 10000`},
		{"scale web=017", 2, nil, "", `"web=017": write NAME=N`},
		{"scale web=-1", 2, nil, "", `"web=-1": write NAME=N`},
		{"scale web=10001", 2, nil, "", `"web=10001": write NAME=N`},
		{"scale web:0=1", 2, nil, "", "an entry is scaled, not a slot"},
		{"scale nope=1", 1, nil, "", "nope: no such entry"},
		{"signal 0 web", 2, nil, "", `unknown signal "0"`},
		{"signal HUP", 2, nil, "", "Try 'sentryd signal --help'"},
		{"status -o xml", 2, nil, "", `"xml" is not json`},
		{"reload web", 2, nil, "", "Try 'sentryd reload --help'"},
		{"stats", 2, nil, "", `sentryd: unknown command "stats" for "sentryd": did you mean start or status?` + "\n"},
		{"--version", 0, nil, "sentryd test\n", ""},
		{"-v", 0, nil, "sentryd test\n", ""},
		{"", 2, nil, "", "sentryd: no command\n"},
		{"completion", 2, nil, "", "no shell is named"},
		{"completion tcsh", 2, nil, "", `unknown command "tcsh" for "sentryd completion"`},
		{"status --bogus", 2, nil, "", "unknown flag: --bogus"},
		{"help stats", 2, nil, "", `unknown command "stats" for "sentryd": did you mean start or status?`},
		{"help completion tcsh", 2, nil, "", `unknown command "tcsh" for "sentryd completion"`},
		{"help stop web", 2, nil, "", `unknown command "web" for "sentryd stop"`},
		{"stop web --timeout 0", 2, nil, "", `invalid argument "0" for "--timeout" flag: not above 0`},
		{"stop --timeout -1s", 2, nil, "", `invalid argument "-1s" for "--timeout" flag: not above 0`},
		{"reload --timeout soon", 2, nil, "", `invalid argument "soon" for "--timeout" flag`},
		{"start --log.format xml", 2, nil, "", `"xml" is not logfmt or json`},
	} {
		t.Run(test.line, func(t *testing.T) {
			d := newFakeDaemon(t, three...)
			two, more := 2, 3
			d.diff = &view.Diff{Changed: true, Daemon: []string{"http.listen"}, Entries: []view.EntryDiff{
				{Name: "api", Action: view.ActionKeep},
				{Name: "web", Action: view.ActionScale, Keys: []string{"count"}, From: &two, To: &more},
				{Name: "worker", Action: view.ActionRestart, Keys: []string{"command", "environment"}},
			}}
			code, out, errs := sentryd(strings.Fields(test.line)...)
			if code != test.code {
				t.Errorf("exit code %d, want %d: %s", code, test.code, errs)
			}
			if diff := cmp.Diff(test.want, d.calls); diff != "" {
				t.Errorf("calls differ (-want +got):\n%s", diff)
			}
			if out != test.out {
				t.Errorf("printed %q, want %q", out, test.out)
			}
			if !strings.Contains(errs, test.err) || (test.err == "") != (errs == "") {
				t.Errorf("complained %q, want %q", errs, test.err)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		line string
		err  error
		code int
		want string
	}{
		{"signal HUP web", view.Errorf(view.Conflict, "no process in web"), 1, "sentryd: web: no process in web\n"},
		{"stop web", view.Errorf(view.Unavailable, "the daemon is stopping"), 1, "sentryd: web: the daemon is stopping\n"},
		{"reload", view.Errorf(view.BadConfig, "/c.yaml:3: bad\n/c.yaml:4: worse"), 2, "sentryd: refused, nothing has changed:\n/c.yaml:3: bad\n/c.yaml:4: worse\n"},
		{"diff", view.Errorf(view.BadConfig, "/c.yaml:3: \x1b[2J"), 2, "sentryd: refused, nothing has changed:\n/c.yaml:3: \\x1b[2J\n"},
	} {
		d := newFakeDaemon(t, entry("web", view.Running))
		d.err = test.err
		code, out, errs := sentryd(strings.Fields(test.line)...)
		if code != test.code || out != "" || errs != test.want {
			t.Errorf("%s: exit code %d, %q, want %d, %q", test.line, code, errs, test.code, test.want)
		}
	}
}

func TestNoDaemon(t *testing.T) {
	t.Setenv("SENTRYD_RUNTIME_DIR", t.TempDir())
	for _, line := range []string{"status", "stop", "stop web", "reload", "diff", "scale web=1", "signal HUP web", "status -s /nowhere"} {
		code, _, errs := sentryd(strings.Fields(line)...)
		if code != 7 || !strings.HasPrefix(errs, "sentryd: no daemon running: nothing listens on /") {
			t.Errorf("%s: exit code %d, %q", line, code, errs)
		}
	}
}

func TestWaiting(t *testing.T) {
	code1 := 1
	set := func(state string, exit *view.Exit) func(st *view.State) {
		return func(st *view.State) {
			p := st.Entry("web").Processes[0]
			p.State, p.LastExit = state, exit
			if exit != nil {
				p.Incarnation = exit.Incarnation
			}
		}
	}
	for _, test := range []struct {
		line  string
		steps []func(*view.State) // what follows the command
		code  int
		out   string
		err   string
	}{
		{"restart web", []func(*view.State){set(view.Stopping, nil), set(view.Starting, nil), set(view.Running, nil)}, 0, "web: running\n", ""},
		{"stop web", []func(*view.State){set(view.Stopping, nil), set(view.Stopped, nil)}, 0, "web: stopped\n", ""},
		{"start web", []func(*view.State){set(view.Starting, nil), set(view.Backoff, &view.Exit{Incarnation: 4, Reason: view.ReasonStartFailed, Error: "exec /nope: no such file or directory"})},
			1, "", "sentryd: web:0: start failed: exec /nope: no such file or directory\n"},
		{"start web", []func(*view.State){set(view.Backoff, &view.Exit{Incarnation: 4, Reason: view.ReasonExited, Code: &code1})},
			1, "", "sentryd: web:0: exited with code 1\n"},
		{"start web", []func(*view.State){set(view.Failed, &view.Exit{Incarnation: 4, Reason: view.ReasonSignaled, Signal: "SIGSEGV", Core: true})},
			1, "", "sentryd: web:0: failed: ended by SIGSEGV (core dumped)\n"},
		// An exit from before the command is no verdict on it.
		{"start web", []func(*view.State){set(view.Backoff, &view.Exit{Incarnation: 3}), set(view.Running, nil)}, 0, "web: running\n", ""},
		{"stop web --timeout 50ms", []func(*view.State){set(view.Stopping, nil)}, 1, "", "sentryd: not done within 50ms: web:0 is stopping\n"},
		{"scale web=2 --timeout 50ms", []func(*view.State){set(view.Stopping, nil)}, 1, "", "sentryd: not done within 50ms: web:0 is stopping\n"},
		// Removed meanwhile: nothing is left to wait for.
		{"stop web", []func(*view.State){func(st *view.State) { st.Entries = nil }}, 0, "web: no slots\n", ""},
	} {
		t.Run(test.line, func(t *testing.T) {
			d := newFakeDaemon(t, entry("web", view.Running))
			d.command = func(d *fakeDaemon, _ string) {
				d.publish(test.steps[0])
				// The others come while the client waits.
				go func() {
					for _, step := range test.steps[1:] {
						d.mu.Lock()
						d.publish(step)
						d.mu.Unlock()
					}
				}()
			}
			code, out, errs := sentryd(strings.Fields(test.line)...)
			if code != test.code || out != test.out || errs != test.err {
				t.Errorf("exit code %d, printed %q and %q; want %d, %q, %q", code, out, errs, test.code, test.out, test.err)
			}
		})
	}
}

// TestScaleWaits for the slots that it adds or removes, whatever the others do.
func TestScaleWaits(t *testing.T) {
	add := func(exit *view.Exit, others ...string) func(st *view.State) {
		return func(st *view.State) {
			e := entry("web", others...)
			for _, p := range e.Processes {
				if p.State == view.Backoff {
					p.Incarnation++
					p.LastExit = &view.Exit{Incarnation: p.Incarnation, Reason: view.ReasonSignaled, Signal: "SIGSEGV"}
				}
			}
			e.Processes[len(others)-1].LastExit = exit
			st.Entries[0] = e
		}
	}
	nope := &view.Exit{Incarnation: 4, Reason: view.ReasonStartFailed, Error: "exec /nope: no such file or directory"}
	for name, test := range map[string]struct {
		before []string
		steps  []func(*view.State)
		code   int
		out    string
		err    string
	}{
		"one waits for its delay": {[]string{view.Backoff}, []func(*view.State){add(nil, view.Backoff, view.Starting), add(nil, view.Backoff, view.Running)},
			0, "web: 1 running, 1 backoff\n", ""},
		"one is started meanwhile": {[]string{view.Backoff}, []func(*view.State){add(nil, view.Starting, view.Running)},
			0, "web: 1 running, 1 starting\n", ""},
		"one has failed": {[]string{view.Failed}, []func(*view.State){add(nil, view.Failed, view.Running)},
			0, "web: 1 running, 1 failed\n", ""},
		"one ends": {[]string{view.Running}, []func(*view.State){add(nil, view.Backoff, view.Running)},
			0, "web: 1 running, 1 backoff\n", ""},
		"the new one does not come up": {[]string{view.Backoff}, []func(*view.State){add(nope, view.Backoff, view.Backoff)},
			1, "", "sentryd: web:1: start failed: exec /nope: no such file or directory\n"},
		"one was about to go": {[]string{view.Running, view.Stopping}, []func(*view.State){add(nope, view.Running, view.Backoff)},
			1, "", "sentryd: web:1: start failed: exec /nope: no such file or directory\n"},
		"one goes": {[]string{view.Running, view.Backoff}, []func(*view.State){add(nil, view.Running, view.Stopping), add(nil, view.Running)},
			0, "web: running\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, line := range []string{"scale web=2", "reload"} {
				d := newFakeDaemon(t, entry("web", test.before...))
				d.diff = &view.Diff{Changed: true, Entries: []view.EntryDiff{{Name: "web", Action: view.ActionScale}}}
				d.command = func(d *fakeDaemon, _ string) {
					d.publish(func(st *view.State) {
						st.Daemon.Reexecs++
						test.steps[0](st)
					})
					go func() {
						for _, step := range test.steps[1:] {
							d.mu.Lock()
							d.publish(step)
							d.mu.Unlock()
						}
					}()
				}
				wantOut, wantErr := test.out, test.err
				if line == "reload" {
					wantOut = "scale    web\n"
					if wantErr != "" {
						wantErr = "sentryd: the new configuration is in use, but not all that it changes is done\n" + wantErr
					}
				}
				code, out, errs := sentryd(append(strings.Fields(line), "--timeout", "10s")...)
				if code != test.code || out != wantOut || errs != wantErr {
					t.Errorf("%s: exit code %d, printed %q and %q; want %d, %q, %q", line, code, out, errs, test.code, wantOut, wantErr)
				}
			}
		})
	}
}

func TestReloadWaits(t *testing.T) {
	d := newFakeDaemon(t, entry("web", view.Running))
	d.diff = &view.Diff{Changed: true, Entries: []view.EntryDiff{{Name: "new", Action: view.ActionAdd}, {Name: "web", Action: view.ActionUpdate, Keys: []string{"delay"}}}}
	d.command = func(d *fakeDaemon, _ string) {
		go func() {
			for _, step := range []func(*view.State){
				func(st *view.State) { st.Daemon.Reexecs++ },
				func(st *view.State) { st.Entries = append([]*view.Entry{entry("new", view.Starting)}, st.Entries...) },
				func(st *view.State) { st.Entries[0] = entry("new", view.Running) },
			} {
				d.mu.Lock()
				d.publish(step)
				d.mu.Unlock()
			}
		}()
	}
	code, out, errs := sentryd("reload")
	if want := "add      new\nupdate   web (delay)\n"; code != 0 || out != want || errs != "" {
		t.Errorf("exit code %d, %q, %q, want %q", code, out, errs, want)
	}

	d = newFakeDaemon(t, entry("web", view.Running))
	d.diff = &view.Diff{}
	d.command = func(d *fakeDaemon, _ string) {
		d.publish(func(st *view.State) {
			st.Daemon.LastReload = view.Reload{At: time.Now(), Error: "execve: permission denied"}
		})
	}
	code, _, errs = sentryd("reload")
	if want := "sentryd: the reload failed, the daemon goes on as before: execve: permission denied\n"; code != 1 || errs != want {
		t.Errorf("exit code %d, %q, want %q", code, errs, want)
	}

	d.command = func(d *fakeDaemon, _ string) { d.publish(func(st *view.State) { st.Daemon.Reexecs++ }) }
	if code, out, _ := sentryd("reload"); code != 0 || out != "nothing changed\n" {
		t.Errorf("exit code %d, %q", code, out)
	}
}

// TestReloadInUse: what is not up under the new configuration is not taken for a
// refusal of it.
func TestReloadInUse(t *testing.T) {
	d := newFakeDaemon(t)
	d.diff = &view.Diff{Changed: true, Entries: []view.EntryDiff{{Name: "bad", Action: view.ActionAdd}, {Name: "good", Action: view.ActionAdd}}}
	state := view.Backoff
	d.command = func(d *fakeDaemon, _ string) {
		d.publish(func(st *view.State) {
			st.Daemon.Reexecs++
			st.Entries = []*view.Entry{entry("bad", state), entry("good", view.Running)}
			st.Entries[0].Processes[0].LastExit = &view.Exit{Incarnation: 1, Reason: view.ReasonStartFailed, Error: "exec /nope: no such file or directory"}
		})
	}
	const changes = "add      bad\nadd      good\n"
	const inUse = "sentryd: the new configuration is in use, but not all that it changes is done\n"
	for _, test := range []struct{ state, err string }{
		{view.Backoff, "sentryd: bad:0: start failed: exec /nope: no such file or directory\n"},
		{view.Stopping, "sentryd: not done within 50ms: bad:0 is stopping\n"},
	} {
		d.publish(func(st *view.State) { st.Entries = nil })
		state = test.state
		if code, out, errs := sentryd("reload", "--timeout", "50ms"); code != 1 || out != changes || errs != inUse+test.err {
			t.Errorf("exit code %d, printed %q and %q", code, out, errs)
		}
	}
}

// A reload that gives way to another's is asked for again; a daemon that is
// stopping is not asked twice.
func TestReloadGivesWay(t *testing.T) {
	d := newFakeDaemon(t, entry("web", view.Running))
	d.diff = &view.Diff{}
	d.refusals = 2
	d.command = func(d *fakeDaemon, _ string) { d.publish(func(st *view.State) { st.Daemon.Reexecs++ }) }
	if code, out, errs := sentryd("reload"); code != 0 || out != "nothing changed\n" || errs != "" || len(d.calls) != 3 {
		t.Errorf("exit code %d, printed %q and %q after %q", code, out, errs, d.calls)
	}
	d.calls, d.refusals = nil, 1
	d.publish(func(st *view.State) { st.Daemon.Stopping = true })
	if code, _, errs := sentryd("reload"); code != 1 || errs != "sentryd: busy\n" || len(d.calls) != 1 {
		t.Errorf("exit code %d, printed %q after %q", code, errs, d.calls)
	}
}

func TestStopDaemonWaits(t *testing.T) {
	d := newFakeDaemon(t, entry("web", view.Running))
	d.state.Daemon.PID = 1 << 30 // nobody's: waiting for this test itself would not end
	d.command = func(d *fakeDaemon, _ string) { go d.end() }
	if code, _, errs := sentryd("stop"); code != 0 || errs != "" {
		t.Errorf("exit code %d, %q", code, errs)
	}

	newFakeDaemon(t, entry("web", view.Stopping))
	if code, _, errs := sentryd("stop", "--timeout", "50ms"); code != 1 || errs != "sentryd: still stopping after 50ms: web:0 is stopping\n" {
		t.Errorf("exit code %d, %q", code, errs)
	}
}

// TestStillStopping: the daemon itself may be all that there is to wait for.
func TestStillStopping(t *testing.T) {
	newFakeDaemon(t, entry("web", view.Stopped))
	if code, _, errs := sentryd("stop", "--timeout", "50ms"); code != 1 || errs != "sentryd: still stopping after 50ms\n" {
		t.Errorf("exit code %d, %q", code, errs)
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, bad := write("good.yaml", "entries: {a: {command: x}}\n"), write("bad.yaml", "entries: {a: {comand: x}}\n")
	if code, out, errs := sentryd("check", "-c", good); code != 0 || out != good+": ok, 1 entry\n" || errs != "" {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
	want := bad + ":1: entries.a: unknown key \"comand\": did you mean \"command\"?\n"
	code, out, errs := sentryd("check", "-c", bad)
	if code != 2 || out != "" || errs != want {
		t.Errorf("exit code %d, %q, %q, want %q", code, out, errs, want)
	}
	nobody := write("nobody.yaml", "control: {users: [no-such-user], groups: [no-such-group]}\nentries: {a: {comand: x}}\n")
	want = nobody + ":1: control.users[0]: there is no user \"no-such-user\" in /etc/passwd\n" +
		nobody + ":1: control.groups[0]: there is no group \"no-such-group\" in /etc/group\n" +
		nobody + ":2: entries.a: unknown key \"comand\": did you mean \"command\"?\n"
	if code, _, errs := sentryd("check", "-c", nobody); code != 2 || errs != want {
		t.Errorf("exit code %d, %q, want %q", code, errs, want)
	}
	if code, _, errs := sentryd("check", "-c", "no-such-configuration"); code != 2 || !strings.Contains(errs, "not found") {
		t.Errorf("exit code %d, %q", code, errs)
	}
}

func TestSocketFlag(t *testing.T) {
	d := newFakeDaemon(t, entry("web", view.Running))
	socket := filepath.Join(d.dir, "web", controlSocket)
	t.Setenv("SENTRYD_RUNTIME_DIR", t.TempDir())
	if code, _, errs := sentryd("status", "-s", socket); code != 0 {
		t.Errorf("-s: exit code %d, %s", code, errs)
	}
	if code, _, errs := sentryd("status", "--runtime-dir", d.dir); code != 0 {
		t.Errorf("--runtime-dir: exit code %d, %s", code, errs)
	}
	t.Setenv("SENTRYD_SOCKET", socket)
	if code, _, errs := sentryd("status", "-c", "./other.yaml"); code != 0 {
		t.Errorf("SENTRYD_SOCKET: exit code %d, %s", code, errs)
	}
	t.Setenv("SENTRYD_SOCKET", "")
	if code, _, errs := sentryd("status", "-c", "./web.yaml", "--runtime-dir", d.dir); code != 0 {
		t.Errorf("-c with a path: exit code %d, %s", code, errs)
	}
}
