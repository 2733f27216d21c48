package spawn

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestStartExit(t *testing.T) {
	p := newTestPool(t, Options{}, nil)
	p.Start(7, sh("exit 3"))
	ev := p.take(t, 2)
	if ev[0].Kind != Started || ev[0].Token != 7 || ev[0].PID <= 0 || ev[0].At <= 0 || ev[0].Wall <= 0 {
		t.Errorf("first event: %+v", ev[0])
	}
	if ev[1].Kind != Exited || ev[1].Token != 7 || ev[1].PID != ev[0].PID || !ev[1].Status.Known ||
		ev[1].Status.Code != 3 || !ev[1].TreeEmpty || ev[1].At < ev[0].At {
		t.Errorf("second event: %+v", ev[1])
	}
	if c := p.Children(); len(c) != 0 {
		t.Errorf("children left: %v", c)
	}
}

func TestUsage(t *testing.T) {
	p := newTestPool(t, Options{}, nil)
	p.Start(1, sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"))
	st := p.take(t, 2)[1].Status
	if st.UserTime <= 0 || st.UserTime.Seconds() > 60 {
		t.Errorf("usage: %+v", st)
	}
	if st.MaxRSS != 0 {
		t.Errorf("a shell has a resident set of %d bytes: that is our own", st.MaxRSS)
	}
	p.Start(2, sh("dd if=/dev/zero of=/dev/null bs=256M count=1 2>/dev/null"))
	if st := p.take(t, 2)[1].Status; st.MaxRSS < 256<<20 || st.MaxRSS > 300<<20 {
		t.Errorf("256 MiB show as %d bytes", st.MaxRSS)
	}
}

// both runs a test with each way to clone.
func both(t *testing.T, test func(t *testing.T, p *Pool)) {
	for _, fork := range []bool{false, true} {
		t.Run(fmt.Sprintf("fork=%v", fork), func(t *testing.T) {
			p := newTestPool(t, Options{}, func(p *Pool) { p.fork = p.fork || fork })
			if p.fork != fork {
				t.Skip("needs clone3(2)")
			}
			test(t, p)
		})
	}
}

func TestArguments(t *testing.T) {
	both(t, func(t *testing.T, p *Pool) {
		dir := t.TempDir()
		out := filepath.Join(dir, "out")
		spec := sh(`pwd; printf '%s\n' "$0" "$@"; env | grep -e ^ONE -e ^LAST | sort; echo err >&2; cat`)
		spec.Args = append(spec.Args, "zero", "a b", "", "ü")
		spec.Env = append(spec.Env, "ONE=1", "TWO=2")
		spec.EnvLast = "LAST=3"
		spec.Dir = dir
		spec.Stdin = Stdio{Path: "/dev/null", Flags: unix.O_RDONLY}
		spec.Stdout = Stdio{Path: out, Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_APPEND}
		spec.Stderr = spec.Stdout
		p.Start(1, spec)
		if ev := p.take(t, 2); ev[1].Status.Code != 0 {
			t.Fatalf("%+v", ev)
		}
		got, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(dir+"\nzero\na b\n\nü\nLAST=3\nONE=1\nerr\n", string(got)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestManyOpenFiles(t *testing.T) {
	// The files of a child get numbers above those that it copies.
	p := newTestPool(t, Options{}, nil)
	for range 128 {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
	}
	dir := t.TempDir()
	spec := sh("cat; echo error >&2; ls /proc/self/fd")
	in := filepath.Join(dir, "in")
	if err := os.WriteFile(in, []byte("input\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec.Stdin = Stdio{Path: in}
	spec.Stdout = Stdio{Path: filepath.Join(dir, "out"), Flags: unix.O_RDWR | unix.O_CREAT}
	spec.Stderr = Stdio{Path: filepath.Join(dir, "err"), Flags: unix.O_RDWR | unix.O_CREAT}
	for token := range Token(3) {
		p.Start(token, spec)
		p.take(t, 2)
		out, _ := os.ReadFile(spec.Stdout.Path)
		stderr, _ := os.ReadFile(spec.Stderr.Path)
		if string(out) != "input\n0\n1\n2\n3\n" || string(stderr) != "error\n" { // 3 is the directory that ls reads
			t.Fatalf("stdout %q, stderr %q", out, stderr)
		}
	}
}

// TestState looks at what a child got, from outside.
func TestState(t *testing.T) {
	// Not what a re-exec does to SIGHUP, and not a file that the daemon inherited.
	signal.Ignore(unix.SIGHUP, unix.SIGUSR1)
	defer signal.Reset(unix.SIGHUP, unix.SIGUSR1)
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, unix.SIGUSR2)
	defer signal.Stop(caught)
	inherited, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(inherited) })

	p := newTestPool(t, Options{}, nil)
	if p.fork {
		t.Skip("needs clone3(2)")
	}
	pid, err := strconv.Atoi(startOne(t, p, 1, static(t, pause())))
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(status)) {
		switch key, value, _ := strings.Cut(line, ":"); key {
		case "SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd":
			seen++
			if strings.Trim(value, "\t0\n") != "" {
				t.Errorf("%s is %s", key, value)
			}
		}
	}
	if seen != 5 {
		t.Errorf("only %d lines in\n%s", seen, status)
	}
	var fds []string
	dir, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range dir {
		fds = append(fds, fd.Name())
	}
	if diff := cmp.Diff([]string{"0", "1", "2"}, fds); diff != "" {
		t.Error("descriptors:", diff)
	}
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("session %d, %v; want %d", sid, err, pid)
	}
	if env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); len(env) != 0 {
		t.Errorf("environment %q", env)
	}
}

func TestLookup(t *testing.T) {
	both(t, func(t *testing.T, p *Pool) {
		dir := t.TempDir()
		write := func(name string, mode os.FileMode) {
			name = filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, []byte("#!/bin/sh\ncase $0 in */a/*) exit 1;; esac; exit 2\n"), mode); err != nil {
				t.Fatal(err)
			}
		}
		write("a/denied", 0o644)
		write("b/denied", 0o755)
		write("b/both", 0o755)
		write("a/both", 0o755)
		write("a/never", 0o644)
		write("here", 0o755)
		if err := os.MkdirAll(filepath.Join(dir, "a/dir"), 0o755); err != nil {
			t.Fatal(err)
		}
		path := "PATH=" + dir + "/none:" + dir + "/a:" + dir + "/a/denied:b"
		for i, test := range []struct {
			path, env string
			code      int
			err       StartError
		}{
			{path: "both", env: path, code: 1},
			{path: "denied", env: path, code: 2},
			{path: "here", env: "PATH=/none:", code: 2},
			{path: "./here", env: path, code: 2},
			{path: "a/both", env: path, code: 2}, // $0 is a/both, without a slash before
			{path: "true", env: "X=1", code: 0},  // the default PATH
			{path: "never", env: path, err: StartError{"lookup", dir + "/a/never", syscall.EACCES}},
			{path: "dir", env: path, err: StartError{"lookup", dir + "/a/dir", syscall.EACCES}},
			{path: "none", env: path, err: StartError{"lookup", "none", syscall.ENOENT}},
			{path: "", env: path, err: StartError{"lookup", "", syscall.ENOENT}},
		} {
			p.Start(Token(i), &Spec{Path: test.path, Env: []string{test.env}, Dir: dir})
			if test.err.Op != "" {
				if diff := cmp.Diff(&test.err, p.take(t, 1)[0].Err); diff != "" {
					t.Errorf("%s: %s", test.path, diff)
				}
				continue
			}
			if ev := p.take(t, 1); ev[0].Kind == StartFailed {
				t.Errorf("%s: %v", test.path, ev[0].Err)
			} else if len(ev) < 2 {
				ev = append(ev, p.take(t, 1)...)
				if ev[1].Status.Code != test.code {
					t.Errorf("%s: %+v, want code %d", test.path, ev[1], test.code)
				}
			}
		}
	})
}

func TestStartFails(t *testing.T) {
	both(t, func(t *testing.T, p *Pool) {
		dir := t.TempDir()
		file := func(name, content string, mode os.FileMode) string {
			name = filepath.Join(dir, name)
			if err := os.WriteFile(name, []byte(content), mode); err != nil {
				t.Fatal(err)
			}
			return name
		}
		busy := file("busy", "", 0o755)
		w, err := os.OpenFile(busy, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		fifo := filepath.Join(dir, "fifo")
		if err := unix.Mkfifo(fifo, 0o755); err != nil {
			t.Fatal(err)
		}
		plain := file("plain", "#!/bin/true\n", 0o644)
		text := file("text", "echo hello\n", 0o755)
		script := file("script", "#!"+dir+"/no-shell -x\n", 0o755)
		none := filepath.Join(dir, "none")
		// What only our own clone can tell from a failed exec.
		step := func(op string) string {
			if p.fork {
				return "exec"
			}
			return op
		}
		stepPath := func(path string) string {
			if p.fork {
				return "/bin/true"
			}
			return path
		}
		for i, test := range []struct {
			name string
			spec Spec
			want StartError
		}{
			{"ENOENT", Spec{Path: none}, StartError{"exec", none, syscall.ENOENT}},
			{"no interpreter", Spec{Path: script}, StartError{"interpreter", dir + "/no-shell", syscall.ENOENT}},
			{"EACCES", Spec{Path: plain}, StartError{"exec", plain, syscall.EACCES}},
			{"FIFO", Spec{Path: fifo}, StartError{"exec", fifo, syscall.EACCES}},
			{"directory", Spec{Path: dir}, StartError{"exec", dir, syscall.EACCES}},
			{"ENOEXEC", Spec{Path: text}, StartError{"exec", text, syscall.ENOEXEC}},
			{"empty", Spec{Path: file("empty", "", 0o755)}, StartError{"exec", dir + "/empty", syscall.ENOEXEC}},
			{"E2BIG", Spec{Path: "/bin/true", Args: []string{strings.Repeat("x", 1<<20)}}, StartError{"exec", "/bin/true", syscall.E2BIG}},
			{"ETXTBSY", Spec{Path: busy}, StartError{"exec", busy, syscall.ETXTBSY}},
			{"ENOTDIR", Spec{Path: plain + "/x"}, StartError{"exec", plain + "/x", syscall.ENOTDIR}},
			{"NUL", Spec{Path: "/bin/true", Args: []string{"a\x00b"}}, StartError{"exec", "/bin/true", syscall.EINVAL}},
			{"no directory", Spec{Path: "/bin/true", Dir: none}, StartError{step("chdir"), stepPath(none), syscall.ENOENT}},
			{"directory is a file", Spec{Path: "/bin/true", Dir: plain}, StartError{step("chdir"), stepPath(plain), syscall.ENOTDIR}},
			{"stdin", Spec{Path: "/bin/true", Stdin: Stdio{Path: none}}, StartError{"open", none, syscall.ENOENT}},
			{"stdout", Spec{Path: "/bin/true", Stdout: Stdio{Path: dir, Flags: unix.O_WRONLY}}, StartError{"open", dir, syscall.EISDIR}},
			{"stderr", Spec{Path: "/bin/true", Stdin: Stdio{Path: plain}, Stderr: Stdio{Path: none}}, StartError{"open", none, syscall.ENOENT}},
		} {
			token := Token(i + 1)
			p.Start(token, &test.spec)
			ev := p.take(t, 1)[0]
			if ev.Kind != StartFailed || ev.Token != token || ev.At == 0 {
				t.Fatalf("%s: %+v", test.name, ev)
			}
			if diff := cmp.Diff(&test.want, ev.Err); diff != "" {
				t.Errorf("%s: %s", test.name, diff)
			}
			if !errors.Is(ev.Err, test.want.Errno) {
				t.Errorf("%s: %v does not unwrap", test.name, ev.Err)
			}
		}
		p.Start(1000, sh("exit 9"))
		if ev := p.take(t, 2); ev[1].Status.Code != 9 {
			t.Errorf("after that: %+v", ev)
		}
	})
}

func TestStartError(t *testing.T) {
	for want, err := range map[string]*StartError{
		"exec /usr/bin/nope: no such file or directory": {"exec", "/usr/bin/nope", syscall.ENOENT},
		"clone: resource temporarily unavailable":       {"clone", "", syscall.EAGAIN},
	} {
		if got := err.Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestKilledBeforeExec lets children die between clone and execve.
func TestKilledBeforeExec(t *testing.T) {
	if !haveClone3() {
		t.Skip("needs clone3(2)")
	}
	fds := devnulls(t)
	tgt := &target{path: "/bin/true", args: []string{"true"}}
	g := newProgram()
	g.setup(tgt, &fds, -1, &Pool{})
	for i := range g.steps {
		g.setup(tgt, &fds, -1, &Pool{})
		if i == len(g.steps)-1 {
			break // execve itself
		}
		g.steps[i] = step{nr: unix.SYS_EXIT_GROUP}
		_, pidfd, err := run(g, tgt)
		if err == nil || err.Errno != syscall.EINTR || err.Op != g.names[i].op {
			t.Errorf("ended in step %d (%s): %v", i, g.names[i].op, err)
		}
		if _, errno := waitDying(pidfd); errno != 0 {
			t.Error(errno)
		}
		unix.Close(pidfd)
	}
}

func TestSignal(t *testing.T) {
	p := newTestPool(t, Options{}, nil)
	if err := signalOne(p, 1, int(unix.SIGTERM)); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("signal to nothing: %v", err)
	}
	if err := p.SignalGroup(1, int(unix.SIGTERM)); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("signal to no group: %v", err)
	}
	p.Start(1, static(t, pause()))
	p.take(t, 1)
	if err := signalOne(p, 1, 1000); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("impossible signal: %v", err)
	}
	if err := signalOne(p, 1, int(unix.SIGTERM)); err != nil {
		t.Error(err)
	}
	if st := p.take(t, 1)[0].Status; st.Signal != int(unix.SIGTERM) || st.Code != 0 || !st.Known {
		t.Errorf("%+v", st)
	}
	if err := signalOne(p, 1, int(unix.SIGTERM)); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("signal to the dead: %v", err)
	}
}

func TestLook(t *testing.T) {
	// Wait is made blind, so that only the hint can tell.
	p := newTestPool(t, Options{}, nil)
	p.Start(1, static(t, pause()))
	p.take(t, 1)
	p.Look(1) // lives
	p.Look(2) // unknown
	p.mu.Lock()
	c := p.children[1]
	_ = unix.EpollCtl(p.ep, unix.EPOLL_CTL_DEL, c.pidfd, nil)
	p.mu.Unlock()
	if err := signalOne(p, 1, int(unix.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	fds := []unix.PollFd{{Fd: int32(c.pidfd), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, -1); err != nil {
		t.Fatal(err)
	}
	if ev := p.Events(nil); len(ev) != 0 {
		t.Fatalf("Wait saw it: %+v", ev)
	}
	p.Look(1)
	if ev := p.take(t, 1); len(ev) != 1 || ev[0].Status.Signal != int(unix.SIGKILL) {
		t.Fatalf("%+v", ev)
	}
}

func TestPrewarm(t *testing.T) {
	Prewarm(20)
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	if len(tasks) < 20 {
		t.Errorf("%d threads", len(tasks))
	}
}

func TestClose(t *testing.T) {
	p := newTestPool(t, Options{}, nil)
	spec := static(t, exitWith(0))
	for i := range Token(100) {
		p.Start(i, spec)
	}
	p.Close()
	p.Close()
	p.Start(1000, spec)
	p.Look(1)
	if err := p.Adopt([]Child{{Token: 1000, PID: os.Getpid(), PidFD: -1}})[0]; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	p.waitSpawners()
	reapOrphans(t)
}

// reapOrphans waits for children that a closed Pool left behind.
func reapOrphans(t *testing.T) {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children") // each thread has its own
	if err != nil || len(lists) == 0 {
		t.Skip("needs /proc/PID/task/TID/children: CONFIG_PROC_CHILDREN")
	}
	for _, list := range lists {
		b, _ := os.ReadFile(list) // the thread may have ended
		for _, word := range bytes.Fields(b) {
			pid, err := strconv.Atoi(string(word))
			if err != nil {
				t.Fatal(err)
			}
			pidfd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, errno := waitDying(pidfd); errno != 0 {
				t.Error(errno)
			}
			unix.Close(pidfd)
		}
	}
}

// TestNoStdio: where nothing is said a child has /dev/null.
func TestNoStdio(t *testing.T) {
	both(t, func(t *testing.T, p *Pool) {
		p.Start(1, sh("for i in 0 1 2; do [ \"$(readlink /proc/$$/fd/$i)\" = /dev/null ] || exit 1$i; done; exit 7"))
		if ev := p.take(t, 2); ev[1].Status.Code != 7 {
			t.Errorf("%+v", ev[1])
		}
	})
}
