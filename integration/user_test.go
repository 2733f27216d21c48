package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
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
		s = d.await("web:1 is back", func(s *state) bool { p := s.process("web", 1); return p.State == "running" && p.Incarnation == 2 })
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
	if code, out := d.runAs(o.as, d.bin, "-c", d.configPath(), "reload"); code != 0 || out != "add      more\nscale    web (2 to 1)\n" {
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
	if !s.Daemon.ProcConnector.Up {
		up = 0
		lacks = append(lacks, "The proc connector is not heard: "+s.Daemon.ProcConnector.Reason)
		if s.Daemon.ProcConnector.Reason == "" || !strings.Contains(d.log.String(), "proc connector") {
			t.Errorf("nobody says why there is no proc connector\n%s", d)
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

// again runs a second daemon and returns what became of it.
func (d *daemon) again(o options) (int, string) {
	return d.runAs(o.as, d.bin, "start", "-c", d.configPath())
}

// TestSecondDaemon is refused, and told whom to look for.
func TestSecondDaemon(t *testing.T) {
	o := plainUser(t)
	d := startDaemon(t, "entries: {web: {command: sleep 1000}}\n", o)
	before := d.identities(d.running("web", 1).entry("web"))
	code, out := d.again(o)
	if code != 1 || !strings.HasPrefix(out, "sentryd: test is running already (PID: "+strconv.Itoa(d.pid)+", ") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if s := d.reexec(); s.Daemon.PID != d.pid {
		t.Errorf("the pid is %d", s.Daemon.PID)
	}
	if code, out := d.again(o); code != 1 || !strings.Contains(out, "PID: "+strconv.Itoa(d.pid)) {
		t.Errorf("after a re-exec: exit code %d\n%s", code, out)
	}
	d.same(before, d.state().entry("web"))
	modes(t, filepath.Join(d.run, "test"))
}

// TestStalePidFile: neither what a daemon left that was killed, nor a pid file
// with somebody else's number, is an obstacle, and nobody is taken for the
// daemon.
func TestStalePidFile(t *testing.T) {
	o := plainUser(t)
	stranger := exec.Command("sleep", "1000")
	stranger.SysProcAttr = &syscall.SysProcAttr{Credential: o.as}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Fails if it is not there any more.
		if err := stranger.Process.Signal(unix.SIGKILL); err != nil {
			t.Errorf("the stranger: %v", err)
		}
		stranger.Wait()
	})
	number := strconv.Itoa(stranger.Process.Pid)

	d := newDaemon(t, "entries: {}\n", o)
	for _, text := range []string{number + "\n", number, "", "1\n", "-1\n", "0\n", "garbage\n", "99999999999999999999\n", strings.Repeat("9", 1<<16)} {
		dir := filepath.Join(d.run, "test")
		if err := os.MkdirAll(dir, 0o711); err != nil {
			t.Fatal(err)
		}
		pidFile := filepath.Join(dir, "sentryd.pid")
		replaceFile(t, pidFile, text, 0o600)
		o.chown(t, dir, pidFile)
		for _, command := range []string{"stop", "status", "reload"} {
			if code, out := d.runAs(o.as, d.bin, "-c", d.configPath(), command); code != 7 {
				t.Errorf("%s with a pid file of %.20q: exit code %d\n%s", command, text, code, out)
			}
		}
		d.start(o)
		d.await("the daemon is up", func(*state) bool { return true })
		if got, err := os.ReadFile(pidFile); err != nil || strings.TrimSpace(string(got)) != strconv.Itoa(d.pid) {
			t.Errorf("the pid file says %q (%v), and it is %d", got, err, d.pid)
		}
		d.signal(unix.SIGKILL)
		<-d.ended
		d.done = true
		if _, err := os.Lstat(pidFile); err != nil {
			t.Errorf("after SIGKILL: %v", err)
		}
	}
	d.start(o) // over what the killed one left, its socket too
	d.await("the daemon is up", func(*state) bool { return true })
	d.stop()
}

// TestLinksAreRefused: a symbolic link in the place of one of our own files
// would have us write where somebody else wants.
func TestLinksAreRefused(t *testing.T) {
	for _, name := range []string{"", "sentryd.pid", "control.sock", "log"} {
		t.Run("in place of "+name, func(t *testing.T) {
			o := plainUser(t)
			d := newDaemon(t, "entries: {web: {command: sleep 1000}}\n", o)
			victim := filepath.Join(d.dir, "victim")
			if name == "" || name == "log" {
				if err := os.Mkdir(victim, 0o700); err != nil {
					t.Fatal(err)
				}
			} else if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(d.run, "test")
			link := filepath.Join(dir, name) // dir itself for no name
			if err := os.MkdirAll(filepath.Dir(link), 0o711); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(victim, link); err != nil {
				t.Fatal(err)
			}
			o.chown(t, victim, filepath.Dir(link), link)
			code, out := d.again(o)
			if code != 1 || !strings.HasPrefix(out, "sentryd: ") || !strings.Contains(out, link+": ") || strings.Count(out, "\n") != 1 {
				t.Errorf("exit code %d\n%s", code, out)
			}
			if strings.Contains(out, "web.") {
				t.Errorf("something was started:\n%s", out)
			}
			if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
				t.Errorf("the link: %v, %v", info, err)
			}
			if name != "" && name != "log" {
				if text, err := os.ReadFile(victim); err != nil || string(text) != "mine" {
					t.Errorf("the victim: %q, %v", text, err)
				}
			} else if entries, err := os.ReadDir(victim); err != nil || len(entries) > 0 {
				t.Errorf("the victim: %v, %v", entries, err)
			}
		})
	}
}

// TestSocketOfAnother: what listens on the control socket's path is not pushed
// aside.
func TestSocketOfAnother(t *testing.T) {
	o := plainUser(t)
	d := newDaemon(t, "entries: {}\n", o)
	dir := filepath.Join(d.run, "test")
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "control.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o.chown(t, dir, socket)
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	if code, out := d.again(o); code != 1 || !strings.Contains(out, socket) {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if c, err := net.Dial("unix", socket); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
}

// TestRootTrustsRootOnly: what says what runs as root is root's alone.
func TestRootTrustsRootOnly(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.User("nobody"))
	who := nobody(t)
	const good = "http: {listen: none}\n"
	for _, c := range []struct {
		name, want string
		spoil      func(dir string) error
	}{
		{"group-writable", "test.yaml: must not be writable by its group or others (mode 0664)", func(dir string) error { return os.Chmod(dir+"/test.yaml", 0o664) }},
		{"world-writable", "test.yaml: must not be writable by its group or others (mode 0646)", func(dir string) error { return os.Chmod(dir+"/test.yaml", 0o646) }},
		{"nobody's", "test.yaml: must belong to uid 0", func(dir string) error { return os.Chown(dir+"/test.yaml", int(who.Uid), 0) }},
		{"directory writable", "test.yaml: its directory %s must not be writable by its group or others (mode 0777)", func(dir string) error { return os.Chmod(dir, 0o777) }},
		{"directory nobody's", "test.yaml: its directory %s must belong to uid 0", func(dir string) error { return os.Chown(dir, int(who.Uid), 0) }},
		{"included", "more.yaml: must not be writable by its group or others (mode 0666)", func(dir string) error { return os.Chmod(dir+"/more.yaml", 0o666) }},
		{"env_file", "web.env: must not be writable by its group or others (mode 0666)", func(dir string) error { return os.Chmod(dir+"/web.env", 0o666) }},
		{"reached by a link", "test.yaml: its directory %s/open must not be writable by its group or others (mode 0777)", func(dir string) error {
			if err := os.Mkdir(dir+"/open", 0); err != nil {
				return err
			}
			if err := os.Chmod(dir+"/open", 0o777); err != nil {
				return err
			}
			if err := os.Rename(dir+"/test.yaml", dir+"/open/real.yaml"); err != nil {
				return err
			}
			return os.Symlink(dir+"/open/real.yaml", dir+"/test.yaml")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "etc")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			replaceFile(t, dir+"/more.yaml", "entries: {web: {command: sleep 1000, env_file: web.env}}\n", 0o644)
			replaceFile(t, dir+"/web.env", "A=b\n", 0o644)
			d := newDaemon(t, good+"include: [more.yaml]\nentries: {}\n", options{dir: dir})
			if code, out, errs := d.ctl("check"); code != 0 {
				t.Fatalf("check: exit code %d\n%s%s", code, out, errs)
			}
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			want := strings.ReplaceAll(c.want, "%s", dir)
			for _, command := range []string{"check", "start"} {
				code, out, errs := d.ctl(command)
				if code != 2 || out != "" || !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
					t.Errorf("%s: exit code %d, want 2 and %q\n%s%s", command, code, want, out, errs)
				}
			}
		})
	}
	t.Run("sticky directory", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "tmp")
		if err := os.Mkdir(dir, 0); err != nil {
			t.Fatal(err)
		}
		d := newDaemon(t, good+"entries: {}\n", options{dir: dir})
		if err := os.Chmod(dir, os.ModeSticky|0o777); err != nil {
			t.Fatal(err)
		}
		d.must("check")
	})
	t.Run("program", func(t *testing.T) {
		home, bin := openDir(t)
		d := newDaemon(t, good+"entries: {}\n", options{dir: home, bin: bin})
		if err := os.Chmod(bin, 0o777); err != nil {
			t.Fatal(err)
		}
		if code, out := d.again(options{}); code != 1 || out != "sentryd: the program "+bin+": must not be writable by its group or others (mode 0777)\n" {
			t.Errorf("exit code %d\n%s", code, out)
		}
	})
	t.Run("reload", func(t *testing.T) {
		d := startDaemon(t, good+"entries: {web: {command: sleep 1000}}\n", options{})
		before := d.identities(d.running("web", 1).entry("web"))
		if err := os.Chmod(d.configPath(), 0o666); err != nil {
			t.Fatal(err)
		}
		if code, _, errs := d.ctl("reload"); code != 2 || !strings.Contains(errs, "must not be writable") {
			t.Errorf("exit code %d\n%s", code, errs)
		}
		d.same(before, d.state().entry("web"))
	})
}

// TestRootsHome comes from the user database: HOME may be that of who called
// sudo.
func TestRootsHome(t *testing.T) {
	testenv.Need(t, testenv.Root())
	home := t.TempDir()
	conf := filepath.Join(home, ".sentryd", "conf")
	if err := os.MkdirAll(conf, 0o755); err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t, "entries: {}\n", options{env: []string{"HOME=" + home, "XDG_CONFIG_HOME=" + home}})
	const name = "sentryd-integration-test"
	replaceFile(t, filepath.Join(conf, name+".yaml"), "entries: {}\n", 0o644)
	code, out := d.runAs(nil, d.bin, "check", "-c", name)
	if code != 2 || strings.Contains(out, home) || !strings.Contains(out, "/etc/sentryd") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}
