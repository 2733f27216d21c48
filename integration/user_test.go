package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// plainUser returns options that run a daemon without any right of root's: as
// nobody if the test is root's, else as who runs the test.
func plainUser(t *testing.T) options {
	t.Helper()
	home, bin := openDir(t)
	o := options{dir: home, bin: bin}
	if os.Geteuid() == 0 {
		o.as = nobody(t)
	}
	return o
}

// chown gives files to the user.
func (o options) chown(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if o.as == nil {
			return
		}
		if err := os.Lchown(p, int(o.as.Uid), int(o.as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPlainUser: everything but the proc connector works without root, and what
// is missing is said.
func TestPlainUser(t *testing.T) {
	o := plainUser(t)
	config := func(count int, more string) string {
		return fmt.Sprintf("http: {listen: '127.0.0.1:0'}\nentries:\n  loop: {command: sh -c 'echo hello; exit 3', delay: 30}\n  web: {command: sleep 1000, delay: 30, count: %d}\n%s", count, more)
	}
	d := startDaemon(t, config(2, ""), o)
	s := d.running("web", 2)
	if d.kill(s.process("web", 1).PID, unix.SIGKILL) {
		d.await("web:1 is back", func(s *state) bool { p := s.process("web", 1); return p.State == "running" && p.Incarnation == 2 })
	} else {
		t.Errorf("web:1 was not there to kill\n%s", d)
	}
	d.await("loop loops", func(s *state) bool { return s.entry("loop").Exits > 3 })
	if x := d.state().process("loop", 0).LastExit; x == nil || x.Code == nil || *x.Code != 3 {
		t.Errorf("the exit of loop is %+v", x)
	}

	// Over TCP and the socket the daemon's own user commands it.
	for _, address := range []string{d.tcpAddress(), d.runtimeFile("control.sock")} {
		if status, body := d.send(clientAs(t, o.as, address), request{method: "POST", path: "/type/web", form: "scale=3"}); status != 200 {
			t.Errorf("%s: %d %s", address, status, body)
		}
	}
	before := d.identities(d.running("web", 3).entry("web"))

	if s := d.reexec(); s.Daemon.PID != d.pid {
		t.Errorf("the pid is %d after SIGHUP, and was %d", s.Daemon.PID, d.pid)
	}
	d.same(before, d.state().entry("web"))
	d.configure(config(1, "  more: {command: sleep 1000}\n"))
	o.chown(t, d.configPath())
	if code, out := d.runAs(o.as, d.bin, "-c", d.configPath(), "reload"); code != 0 || out != "add      more\nscale    web (3 to 1)\n" {
		t.Errorf("reload: exit code %d\n%s", code, out)
	}
	d.running("web", 1)
	d.running("more", 1)

	d.configure(config(1, "  more: {comand: sleep 1000}\n"))
	if code, out := d.runAs(o.as, d.bin, "-c", d.configPath(), "reload"); code != 2 || !strings.Contains(out, `test.yaml:5: entries.more: unknown key "comand": did you mean "command"?`) {
		t.Errorf("reload of a broken configuration: exit code %d\n%s", code, out)
	}
	d.running("more", 1)

	// What is missing. From Linux 6.6 on the connector is for everybody.
	_, out := d.runAs(o.as, d.bin, "-c", d.configPath(), "status")
	s = d.state()
	lacks := s.Daemon.Missing
	up := 1.0
	if c := s.Daemon.ProcConnector; !c.Up {
		up = 0
		if c.Reason == "" || !strings.Contains(out, "\n! The proc connector is not heard: "+c.Reason+"\n") || !strings.Contains(d.log.String(), c.Reason) {
			t.Errorf("status and log do not both say why there is no proc connector, %q:\n%s\n%s", c.Reason, out, d)
		}
	}
	if got := d.metrics()["sentryd_proc_connector_up"]; got != up {
		t.Errorf("sentryd_proc_connector_up is %v", got)
	}
	if !strings.Contains(strings.Join(lacks, "\n"), "Not root") {
		t.Errorf("it is not said that it is not root: %q", lacks)
	}
	for _, sentence := range lacks {
		if !strings.Contains(out, "\n! "+sentence+"\n") || !strings.Contains(d.log.String(), sentence) {
			t.Errorf("status and log do not both say %q:\n%s\n%s", sentence, out, d)
		}
	}
}

// TestPlacesOfAPlainUser: where INTERFACE says, without -c and --runtime-dir.
func TestPlacesOfAPlainUser(t *testing.T) {
	none := func(string) []string { return nil }
	for _, c := range []struct {
		name        string
		env         func(home string) []string
		config, run string // below home
		args        []string
	}{
		{name: "XDG", config: "xdg/sentryd/sentry.yaml", run: "rt/sentryd/sentry",
			env: func(home string) []string {
				return []string{"XDG_CONFIG_HOME=" + home + "/xdg", "XDG_RUNTIME_DIR=" + home + "/rt"}
			}},
		{name: "home", config: ".config/sentryd/sentry.yaml", run: ".sentryd/run/sentry", env: none},
		{name: "old home", config: ".sentryd/conf/sentry.yaml", run: ".sentryd/run/sentry", env: none},
		{name: "by name", config: ".config/sentryd/other.yaml", run: ".sentryd/run/other", env: none, args: []string{"-c", "other"}},
		{name: "by path", config: "here/my.yml", run: ".sentryd/run/my", env: none, args: []string{"-c", "here/my.yml"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := plainUser(t)
			home := o.dir
			config := filepath.Join(home, c.config)
			if err := os.MkdirAll(filepath.Dir(config), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Join(home, "rt"), 0o700); err != nil {
				t.Fatal(err)
			}
			replaceFile(t, config, "http: {listen: none}\nentries: {web: {command: sleep 1000}}\n", 0o644)
			for path := config; path != filepath.Dir(home); path = filepath.Dir(path) {
				o.chown(t, path)
			}
			o.chown(t, filepath.Join(home, "rt"))
			env := append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home}, c.env(home)...)
			run := func(args ...string) *exec.Cmd {
				cmd := exec.Command(o.bin, append(args, c.args...)...)
				cmd.Dir, cmd.Env = home, env
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: o.as}
				return cmd
			}
			out := newTranscript(t, filepath.Join(home, c.run))
			cmd := run("start")
			cmd.Stdout, cmd.Stderr = out, out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() {
				ended <- cmd.Wait()
				out.close()
			}()
			t.Cleanup(func() {
				if t.Failed() {
					_ = cmd.Process.Signal(unix.SIGTERM) // it may have ended
				}
			})
			out.expect("Sentry started (PID: 1511 saved in /run/sentryd/sentryd.pid).", "20:17:51 web.1514 Started at 1334081871.")
			if text, err := run("status").CombinedOutput(); err != nil || !strings.Contains(string(text), " "+config+",") {
				t.Errorf("status: %v\n%s", err, text)
			}
			dir := filepath.Join(home, c.run)
			if pid, err := os.ReadFile(filepath.Join(dir, "sentryd.pid")); err != nil || strings.TrimSpace(string(pid)) != strconv.Itoa(cmd.Process.Pid) {
				t.Errorf("the pid file says %q (%v), and it is %d", pid, err, cmd.Process.Pid)
			}
			modes(t, dir)
			if text, err := run("stop").CombinedOutput(); err != nil {
				t.Errorf("stop: %v\n%s", err, text)
			}
			if err := <-ended; err != nil {
				t.Errorf("the daemon: %v\n%s", err, out)
			}
		})
	}
}

// modes checks who may get at the files of a runtime directory.
func modes(t *testing.T, dir string) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		switch {
		case path == dir && info.Mode() != os.ModeDir|0o711,
			info.Name() == "control.sock" && info.Mode() != os.ModeSocket|0o666,
			path != dir && info.Name() != "control.sock" && info.Mode().Perm()&0o077 != 0:
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
