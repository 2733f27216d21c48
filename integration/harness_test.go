package integration

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// patience is how long a test waits for what ought to come at once. It is for
// a busy host: no assertion is about it.
var patience = testenv.Slow(60 * time.Second)

// often is how many times a test does what it does often: short in a -short run,
// and soak where the long forms are wanted, by SENTRYD_SOAK=1.
func often(short, usual, soak int) int {
	switch {
	case os.Getenv("SENTRYD_SOAK") != "":
		return soak
	case testing.Short():
		return short
	}
	return usual
}

// options say how a daemon under test differs from the usual one.
type options struct {
	name   string              // of the configuration, "test" if empty
	args   []string            // further arguments of `sentryd start`
	env    []string            // further environment, KEY=VALUE
	bin    string              // the program, if not the one under test
	stdout io.Writer           // takes standard output in the place of out
	as     *syscall.Credential // the user to run as
	dir    string              // where everything lives, if not in a new directory
	in     cgroup              // to be started in, if not in a new one
	files  []*os.File          // passed from descriptor 3 on
}

// A daemon is a running sentryd with directories, a process and a mark of its
// own. It is ended, and looked after, when the test ends.
type daemon struct {
	t      *testing.T
	bin    string   // that the daemon is started from
	cli    string   // that the commands are
	dir    string   // of the configuration
	run    string   // --runtime-dir
	name   string   // of the configuration, without .yaml
	env    []string // of the daemon and of the commands
	mark   string   // in the environment of everything that the daemon started
	out    *transcript
	log    *transcript // standard error
	pid    int
	pidfd  int
	client *client
	ended  chan struct{} // closed when the process is gone; err is set by then
	err    error
	done   bool   // ended and checked
	in     cgroup // that it runs in, or ""
	tidied bool   // cleanup is registered
}

// startDaemon runs a configuration, which needs no http key, and returns once
// the control socket answers.
func startDaemon(t *testing.T, config string, o options) *daemon {
	t.Helper()
	d := newDaemon(t, config, o)
	d.start(o)
	d.await("the daemon is up", func(*state) bool { return true })
	return d
}

// newDaemon prepares all that start needs.
func newDaemon(t *testing.T, config string, o options) *daemon {
	t.Helper()
	d := &daemon{t: t, bin: o.bin, cli: docsBinary(t), dir: o.dir, name: o.name}
	if d.bin == "" {
		d.bin = d.cli
	}
	if d.dir == "" {
		d.dir = t.TempDir()
	}
	if d.name == "" {
		d.name = "test"
	}
	if d.in = o.in; d.in == "" {
		d.in = newCgroup(t)
	}
	d.run = filepath.Join(d.dir, "run")
	if err := os.MkdirAll(d.run, 0o755); err != nil {
		t.Fatal(err)
	}
	if o.as != nil {
		for dir := d.run; dir != filepath.Dir(d.dir); dir = filepath.Dir(dir) {
			if err := os.Chown(dir, int(o.as.Uid), int(o.as.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Names the test and this run of it: what carries it was started here.
	d.mark = "SENTRYD_TEST_MARK=" + d.run + "." + time.Now().Format("150405.000000000")
	d.env = append([]string{
		"PATH=" + filepath.Dir(d.cli) + ":" + os.Getenv("PATH") + ":/usr/sbin:/sbin",
		"HOME=" + d.dir, "SENTRYD_RUNTIME_DIR=" + d.run, "LC_ALL=C.UTF-8", d.mark,
	}, o.env...)
	d.configure(config)
	return d
}

// configure writes the configuration. A reload takes it up.
func (d *daemon) configure(text string) {
	d.t.Helper()
	if !strings.Contains("\n"+text, "\nhttp:") {
		text = "http: {listen: none}\n" + text
	}
	replaceFile(d.t, d.configPath(), text, 0o644)
}

func (d *daemon) configPath() string { return filepath.Join(d.dir, d.name+".yaml") }

// runtimeFile is the path of a file in the daemon's runtime directory.
func (d *daemon) runtimeFile(name string) string { return filepath.Join(d.run, d.name, name) }

// replaceFile puts a file in place at once, as an editor does.
func replaceFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// start runs the daemon, without waiting for anything.
func (d *daemon) start(o options) {
	d.t.Helper()
	d.out, d.log = newTranscript(d.t, d.run), newTranscript(d.t, d.run)
	cmd := exec.Command(d.bin, append([]string{"start", "-c", d.configPath()}, o.args...)...)
	cmd.Dir, cmd.Env = d.dir, append(slices.Clip(d.env), o.env...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = d.out, d.log, o.files
	if o.stdout != nil {
		cmd.Stdout = o.stdout
	}
	cmd.WaitDelay = 5 * time.Second // should something hold the output open
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &d.pidfd, Credential: o.as}
	if d.in != "" {
		dir, err := os.Open(string(d.in))
		if err != nil {
			d.t.Fatal(err)
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.pid = cmd.Process.Pid
	d.client = newClient(d.runtimeFile("control.sock"))
	d.ended, d.done = make(chan struct{}), false
	go func() {
		d.err = cmd.Wait()
		d.out.close()
		d.log.close()
		close(d.ended)
	}()
	if !d.tidied {
		d.tidied = true
		d.t.Cleanup(d.cleanup)
	}
}

// signal sends a signal to the daemon itself.
func (d *daemon) signal(s unix.Signal) {
	d.t.Helper()
	if err := unix.PidfdSendSignal(d.pidfd, s, nil, 0); err != nil {
		d.t.Fatalf("send %v to the daemon: %v\n%s", s, err, d)
	}
}

// stop ends the daemon by SIGTERM, as `finish` does, when nothing more is to be
// seen. Before that every entry's counters have to fit what lives.
func (d *daemon) stop() {
	d.t.Helper()
	checkCounters(d.t, d.state())
	d.signal(unix.SIGTERM)
	d.finish(0)
}

// finish waits for the end of a daemon that was told to end, and checks that
// it ended with that code and left nothing.
func (d *daemon) finish(code int) {
	d.t.Helper()
	select {
	case <-d.ended:
	case <-time.After(patience):
		d.t.Fatalf("the daemon is still there after %v\n%s", patience, d)
	}
	d.done = true
	if got := exitCodeOf(d.err); got != code {
		d.t.Errorf("the daemon ended with %v, want exit code %d\n%s", d.err, code, d)
	}
	for _, p := range marked(d.t, d.mark) {
		// A reload that was cut short leaves the new program to finish its look
		// at the state, which is a matter of milliseconds.
		if strings.Contains(commandLine(p.pid), "check-state") && p.gone(patience) {
			continue
		}
		if hasMark(p.pid, d.mark) {
			d.t.Errorf("left running: %d %s\n%s", p.pid, commandLine(p.pid), d)
		}
	}
	for _, name := range []string{"sentryd.pid", "control.sock"} {
		if _, err := os.Lstat(d.runtimeFile(name)); !errors.Is(err, os.ErrNotExist) {
			d.t.Errorf("%s is left behind (%v)", name, err)
		}
	}
}

// exitCodeOf is the exit code in what exec.Cmd.Wait returned, -1 for anything
// else, such as a signal.
func exitCodeOf(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// cleanup ends what a test left: gently if it passed, which has to do.
func (d *daemon) cleanup() {
	d.client.close()
	if !d.done && !d.t.Failed() {
		d.stop()
	}
	if !d.done {
		// ESRCH: it is gone already.
		_ = unix.PidfdSendSignal(d.pidfd, unix.SIGKILL, nil, 0)
		<-d.ended
	}
	for _, fd := range marked(d.t, d.mark) {
		_ = unix.PidfdSendSignal(fd.pidfd, unix.SIGKILL, nil, 0)
	}
	unix.Close(d.pidfd)
}

// String is what the daemon printed, for a failure: not more of it than a
// person reads.
func (d *daemon) String() string {
	const most = 8 << 10
	tail := func(s string) string {
		if len(s) > most {
			return "…" + s[len(s)-most:]
		}
		return s
	}
	return "standard output:\n" + tail(d.out.String()) + "standard error:\n" + tail(d.log.String())
}

// ctl runs a sentryd command about this daemon and returns its exit code and
// what it printed on standard output and on standard error.
func (d *daemon) ctl(args ...string) (code int, stdout, stderr string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.cli, append([]string{"-c", d.configPath()}, args...)...)
	cmd.Dir, cmd.Env = d.dir, d.env
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		d.t.Fatalf("sentryd %v: still running after %v\n%s", args, patience, d)
	}
	return exitCodeOf(err), out.String(), errs.String()
}

// must runs a command that has to succeed and returns what it printed.
func (d *daemon) must(args ...string) string {
	d.t.Helper()
	code, out, errs := d.ctl(args...)
	if code != 0 {
		d.t.Fatalf("sentryd %v: exit code %d\n%s%s\n%s", args, code, out, errs, d)
	}
	return out
}

// reexec makes the daemon re-exec itself by SIGHUP and returns the state after
// it.
func (d *daemon) reexec() *state {
	d.t.Helper()
	before := d.state().Daemon.Reexecs
	d.signal(unix.SIGHUP)
	return d.await("a re-exec", func(s *state) bool { return s.Daemon.Reexecs > before })
}

// sameResources fails the test unless the daemon holds the same descriptors,
// by kind, as it did before.
func (d *daemon) sameResources(before map[string]int) {
	d.t.Helper()
	if after := d.resources(); !maps.Equal(before, after) {
		d.t.Errorf("descriptors of the daemon:\nbefore %v\nafter  %v", before, after)
	}
}

// resources counts the descriptors that the daemon holds, by kind: those that are
// there whenever one looks, as some are opened for a moment.
func (d *daemon) resources() map[string]int {
	d.t.Helper()
	least := descriptors(d.t, d.pid)
	for range 4 {
		now := descriptors(d.t, d.pid)
		for kind, n := range least {
			if least[kind] = min(n, now[kind]); least[kind] == 0 {
				delete(least, kind)
			}
		}
	}
	return least
}

// same fails the test unless an entry has the same processes as before.
func (d *daemon) same(before map[int]string, e *entryState) {
	d.t.Helper()
	if after := d.identities(e); !maps.Equal(before, after) {
		d.t.Errorf("processes of %s:\nbefore %v\nafter  %v", e.Name, before, after)
	}
}
