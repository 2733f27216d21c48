package integration

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

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
