package integration

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// descendants waits until that many of an entry's are shown. Their number does not
// raise the version of the state.
func (d *daemon) descendants(entry string, n int) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("%s has %d descendants", entry, n), func() error {
		if got := d.state().entry(entry).Descendants; got != n {
			return fmt.Errorf("%d are shown", got)
		}
		return nil
	})
}

// tree returns what `sentryd tree` prints of an entry, command lines by pid.
func (d *daemon) tree(entry string) map[int]string {
	d.t.Helper()
	out := make(map[int]string)
	for line := range strings.Lines(d.must("tree", entry)) {
		pid, command, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		n, err := strconv.Atoi(pid)
		if err != nil {
			d.t.Fatalf("a line of the tree is %q", line)
		}
		out[n] = command
	}
	return out
}

const preforking = "setsid sleep 1001 &\n(sleep 1002 &)\nsleep 1003 &\nwait\n"

// TestDescendants: of a script that forks, of which one leads a session and one
// has lost its parent, with the connector and without.
func TestDescendants(t *testing.T) {
	for name, connector := range map[string]string{"forks": "", "cgroup": "proc_connector: {enabled: false}\n", "exits": "proc_connector: {events: exit}\n"} {
		t.Run(name, func(t *testing.T) {
			testenv.Need(t, testenv.Root(), testenv.Connector(), testenv.Cgroup2())
			d := startDaemon(t, connector+"entries:\n  pre: {command: "+script(t, preforking)+"}\n", options{})
			d.running("pre", 1)
			d.descendants("pre", 3)
			pid := d.state().process("pre", 0).PID
			shown := d.tree("pre")
			var children []int
			for p, command := range shown {
				if p != pid {
					children = append(children, p)
					if !strings.HasPrefix(command, "sleep 100") {
						t.Errorf("%d is shown as %q", p, command)
					}
				} else if !strings.HasPrefix(command, "/bin/sh ") {
					t.Errorf("the main process is shown as %q", command)
				}
			}
			if len(shown) != 4 || len(children) != 3 {
				t.Fatalf("the tree is %v", shown)
			}
			d.reexec()
			if name == "forks" {
				// Until then the cgroup tells, and nobody counts ends.
				eventually(t, "the connector is heard again", func() error {
					if tree := d.get("/v1/entries/pre/tree"); !strings.Contains(tree, `"proc_connector"`) {
						return errors.New(tree)
					}
					return nil
				})
			}
			d.descendants("pre", 3)
			d.kill(children[0], unix.SIGKILL)
			d.descendants("pre", 2)
			if name != "forks" {
				return
			}
			eventually(t, "the end is counted", func() error {
				m := d.metrics()
				forks := m[`sentryd_entry_forks_total{entry="pre"}`]
				// Right after a re-exec the listing may see that it is gone before its exit is heard.
				ends := m[`sentryd_entry_descendant_exits_total{entry="pre",reason="signaled"}`] + m[`sentryd_entry_descendant_exits_total{entry="pre",reason="unknown"}`]
				if execs := m[`sentryd_entry_execs_total{entry="pre"}`]; forks < 3 || ends != 1 || execs < 4 {
					return fmt.Errorf("%v forks, %v execs, %v ends by a signal", forks, execs, ends)
				}
				return nil
			})
		})
	}
}

// TestCrashesBelow: a master whose workers die again and again is restarted, or
// it is said.
func TestCrashesBelow(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.Connector())
	master := script(t, "while :; do sleep 0.05; sh -c 'exit 3'; done\n")
	d := startDaemon(t, fmt.Sprintf(`entries:
  reported: {command: %[1]s, descendants: {failures: 3, within: 10s}}
  restarted: {command: %[1]s, descendants: {failures: 3, within: 10s, action: restart}}
  fine: {command: %[1]s, descendants: {failures: 1000, within: 1s}}
`, master), options{})
	s := d.await("the crashes are noticed", func(s *state) bool {
		return s.process("reported", 0).Error != "" && s.entry("restarted").Starts >= 2 && s.process("restarted", 0).State == "running"
	})
	if p := s.process("reported", 0); p.Incarnation != 1 || p.State != "running" || !strings.Contains(p.Error, "crashes: 4 times within 10s") {
		t.Errorf("reported: %+v", p)
	}
	if x := s.process("restarted", 0).LastExit; x == nil || x.Initiator != "health" {
		t.Errorf("restarted: the last exit is %+v", x)
	}
	if p := s.process("fine", 0); p.Error != "" || p.Incarnation != 1 {
		t.Errorf("fine: %+v", p)
	}
	if events := d.must("events", "restarted"); !strings.Contains(events, "descendant_crashes") || !strings.Contains(events, "within 10s: the slot is restarted") {
		t.Errorf("the events are\n%s", events)
	}
	checkCounters(t, s)
}

// TestLineageAfterOverruns: a storm of forks, one after the other, that a small
// buffer cannot hold. What is left of it is known within a second of its end, by the
// cgroup or, where there is none, by parents and sessions.
func TestLineageAfterOverruns(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.Connector())
	eachContainment(t, func(t *testing.T, o options) {
		done := filepath.Join(t.TempDir(), "done")
		storm := script(t, fmt.Sprintf(`i=0
while [ $i -lt %d ]; do (:); i=$((i+1)); done
setsid sleep 1001 &
(sleep 1002 &)
: >%s
wait
`, often(1000, 10_000, 100_000), done))
		d := startContained(t, "proc_connector: {buffer: 4KiB}\n"+ticking+"  storm: {command: "+storm+"}\n", o)
		eventually(t, "the storm ends", func() error { _, err := os.Stat(done); return err })
		began := time.Now()
		d.descendants("storm", 2)
		if took := time.Since(began); took > testenv.Slow(time.Second) {
			t.Errorf("right %v after the storm", took)
		}
		m := d.metrics()
		if m["sentryd_proc_events_lost_total"] == 0 || m["sentryd_proc_resyncs_total"] == 0 {
			t.Error("nothing was lost: the storm is too weak")
		}
		s := d.state()
		if p := s.process("storm", 0); p.Incarnation != 1 || p.State != "running" {
			t.Errorf("%+v", p)
		}
		checkCounters(t, s)
	})
}

// TestSameProcess: a process whose first thread ends, one that executes another
// program from another thread, and one that executes itself stay what they are.
func TestSameProcess(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.Connector(), testenv.Tool("python3"))
	dir := t.TempDir()
	program := func(name, text string) string {
		path := filepath.Join(dir, name+".py")
		text = "import ctypes, os, platform, sys, threading, time\nopen(sys.argv[0] + '.pid', 'w').write(str(os.getpid()))\n" +
			"def live():\n    open(sys.argv[0] + '.ok', 'w').close()\n    time.sleep(1000)\n" + text
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	programs := map[string]string{
		"leader": program("leader", "threading.Thread(target=live).start()\nctypes.CDLL(None).syscall({'x86_64': 60, 'aarch64': 93}[platform.machine()], 0)\n"),
		"thread": program("thread", "if len(sys.argv) > 1: live()\nthreading.Thread(target=lambda: os.execv(sys.executable, [sys.executable, sys.argv[0], 'again'])).start()\ntime.sleep(1000)\n"),
		"itself": program("itself", "if len(sys.argv) > 3: live()\nos.execv(sys.executable, [sys.executable] + sys.argv + ['again'])\n"),
	}
	config := "entries:\n"
	for name, path := range programs {
		config += fmt.Sprintf("  %s: {command: [python3, %s], delay: 0}\n", name, path)
	}
	d := startDaemon(t, config, options{})
	for name, path := range programs {
		eventually(t, name+" is where it should be", func() error { _, err := os.Stat(path + ".ok"); return err })
	}
	d.must("scale", "leader=2") // something that comes after all that could be wrong
	s := d.running("leader", 2)
	for name, path := range programs {
		p := s.process(name, 0)
		text, err := os.ReadFile(path + ".pid")
		if err != nil {
			t.Fatal(err)
		}
		if p.State != "running" || p.Incarnation != 1 || name != "leader" && string(text) != strconv.Itoa(p.PID) {
			t.Errorf("%s: %+v, it says it is %s", name, p, text)
		}
		if n := s.entry(name).Descendants; n != 0 {
			t.Errorf("%s has %d descendants", name, n)
		}
		if got := d.tree(name); got[p.PID] == "" {
			t.Errorf("%s: the tree is %v", name, got)
		}
	}
	checkCounters(t, s)
}

// TestHandover: nginx makes itself a daemon, and is upgraded by SIGUSR2. Its new
// master becomes the main process each time, nothing is restarted, no connection
// is refused, and a stop ends all of it.
func TestHandover(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.Connector(), testenv.Tool("nginx"))
	dir := t.TempDir()
	listen := freeAddress(t)
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(`
pid nginx.pid;
worker_processes 2;
error_log error.log notice;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
  server { listen `+listen+`; location / { return 200 "hello\n"; } }
}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, `entries:
  nginx:
    command: [`+testenv.LookTool("nginx")+`, -p, ./, -c, nginx.conf, -e, error.log]
    directory: .
    handover: true
    stop: {signal: QUIT, timeout: 10s}
`, options{dir: dir})
	d.endGently()
	master := func() int {
		var pid int
		eventually(t, "nginx says its pid", func() error {
			text, err := os.ReadFile(filepath.Join(dir, "nginx.pid"))
			if err != nil {
				return err
			}
			pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
			return err
		})
		return pid
	}
	follows := func(pid int) *state {
		t.Helper()
		return d.await("the master is the main process", func(s *state) bool { return s.process("nginx", 0).PID == pid })
	}
	follows(master())
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func() error {
		resp, err := client.Get("http://" + listen)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.ReadAll(resp.Body)
		return err
	}
	eventually(t, "nginx answers", get)
	stop, failed := make(chan struct{}), make(chan error, 1)
	go func() { // ends with the first error
		for {
			select {
			case <-stop:
				failed <- nil
				return
			default:
			}
			if err := get(); err != nil {
				failed <- err
				return
			}
		}
	}()
	for range 2 {
		old := master()
		d.must("signal", "USR2", "nginx")
		eventually(t, "there is another master", func() error {
			if pid := master(); pid == old {
				return fmt.Errorf("it is %d still", pid)
			}
			return nil
		})
		d.must("signal", "QUIT", "nginx")
		follows(master())
	}
	d.reexec()
	s := follows(master())
	close(stop)
	if err := <-failed; err != nil {
		t.Errorf("a request failed: %v", err)
	}
	if e, p := s.entry("nginx"), s.process("nginx", 0); e.Starts != 1 || e.Exits != 0 || p.Incarnation != 1 || p.State != "running" {
		t.Errorf("%d starts, %d exits, %+v", e.Starts, e.Exits, p)
	}
	checkCounters(t, s)
	if n := strings.Count(d.must("events", "nginx"), "handed_over"); n != 3 {
		t.Errorf("%d hand-overs are told", n)
	}
	shown := d.tree("nginx")
	if len(shown) != 3 || !strings.HasPrefix(shown[s.process("nginx", 0).PID], "nginx: master process") {
		t.Errorf("the tree is %v", shown)
	}
	var procs []proc // of a server, which writes over its mark
	for pid := range shown {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		procs = append(procs, proc{pid, fd})
	}
	d.must("stop", "nginx")
	for _, p := range procs {
		if !p.gone(0) {
			t.Errorf("%d lives", p.pid)
		}
	}
	if x := d.state().process("nginx", 0).LastExit; x == nil || x.Initiator != "command" {
		t.Errorf("the exit is %+v", x)
	}
}
