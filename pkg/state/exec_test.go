package state

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// generations is how often the re-execing process does. Its images inherit the
// environment.
func generations() int {
	if os.Getenv(shortEnv) != "" {
		return 10
	}
	return 50
}

const shortEnv = "STATE_TEST_SHORT"

// report is what each image of the re-execing process prints, a JSON line.
type report struct {
	Generation int
	PID        int
	FDs        int               // open descriptors of the process
	Inodes     map[string]uint64 // of the descriptors handed over
	Alive      bool              // the child, by its pidfd
	Soft, Next uint64            // RLIMIT_NOFILE: ours, and what a child gets
	SigIgn     bool              // a child has SIGHUP ignored
}

// playReexec is the process that re-execs itself. Its child is a cat that ends
// when the test closes our standard input, whatever becomes of us.
func playReexec() error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, unix.SIGHUP) // first of all, as the package comment says
	inh, err := Inherit()
	if err != nil {
		return err
	}
	var generation int
	var files []File
	if inh == nil {
		if files, err = makeFiles(); err != nil {
			return err
		}
	} else {
		if err := json.Unmarshal(inh.Saved.Payload, &generation); err != nil {
			return err
		}
		for _, f := range inh.Saved.Files {
			fd, ok := inh.Take(f.Name)
			if !ok {
				return fmt.Errorf("%s is missing", f.Name)
			}
			files = append(files, File{f.Name, fd})
		}
		if n := len(inh.Saved.Leftovers); n != 1 {
			return fmt.Errorf("%d leftovers", n)
		}
		if _, err := unix.FcntlInt(uintptr(inh.Saved.Leftovers[0]), unix.F_GETFD, 0); err != nil {
			return fmt.Errorf("the leftover is not open: %w", err)
		}
		inh.CloseLeftovers() // or there are more descriptors each time
	}
	if err := describe(generation, files); err != nil {
		return err
	}
	if generation == generations() {
		return unix.PidfdSendSignal(descriptor(files, "pidfd:child:0"), unix.SIGKILL, nil, 0)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	if err := CheckFiles(files); err != nil {
		return err
	}
	s := &Saved{Payload: json.RawMessage(fmt.Sprint(generation + 1)), Leftovers: []int{set}}
	return Exec(self, os.Args, os.Environ(), s, files)
}

func descriptor(files []File, name string) int {
	for _, f := range files {
		if f.Name == name {
			return f.FD
		}
	}
	return -1
}

// makeFiles makes descriptors of each kind. They are raw numbers that nobody
// closes, as no finalizer may close what is handed over.
func makeFiles() (files []File, err error) {
	add := func(name string, fd int, err error) error {
		files = append(files, File{name, fd})
		return err
	}
	pidfd := -1
	cat, err := exec.LookPath("cat")
	if err != nil {
		return nil, err
	}
	// It holds none of the outputs that the test reads to their end.
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(null)
	_, err = syscall.ForkExec(cat, []string{"cat"}, &syscall.ProcAttr{
		Files: []uintptr{0, uintptr(null), uintptr(null)}, Sys: &syscall.SysProcAttr{PidFD: &pidfd},
	})
	if err := add("pidfd:child:0", pidfd, err); err != nil {
		return nil, err
	}
	dir := os.Getenv(dirEnv)
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		return nil, err
	}
	fd, err := unix.Open(fifo, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err := add("fifo:child:0", fd, err); err != nil {
		return nil, err
	}
	fd, err = unix.Open(filepath.Join(dir, "file"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err := add("file:pid", fd, err); err != nil {
		return nil, err
	}
	lk := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &lk); err != nil {
		return nil, err
	}
	for name, addr := range map[string]unix.Sockaddr{
		"listener:tcp":  &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}},
		"listener:unix": &unix.SockaddrUnix{Name: filepath.Join(dir, "sock")},
		"netlink:proc":  &unix.SockaddrNetlink{Family: unix.AF_NETLINK},
		"socket:notify": &unix.SockaddrUnix{Name: filepath.Join(dir, "notify")},
	} {
		domain, typ := unix.AF_UNIX, unix.SOCK_STREAM
		switch addr.(type) {
		case *unix.SockaddrInet4:
			domain = unix.AF_INET
		case *unix.SockaddrNetlink:
			domain, typ = unix.AF_NETLINK, unix.SOCK_RAW
		}
		if name == "socket:notify" {
			typ = unix.SOCK_DGRAM
		}
		fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(fd, addr)
		}
		if err == nil && strings.HasPrefix(name, "listener:") {
			err = unix.Listen(fd, 1)
		}
		if err := add(name, fd, err); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return files, nil
}

// describe prints a report.
func describe(generation int, files []File) error {
	r := report{Generation: generation, PID: os.Getpid(), Inodes: map[string]uint64{}}
	for _, f := range files {
		var st unix.Stat_t
		if err := unix.Fstat(f.FD, &st); err != nil {
			return err
		}
		r.Inodes[f.Name] = st.Ino
		flags, err := unix.FcntlInt(uintptr(f.FD), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			return fmt.Errorf("%s is not close-on-exec (%v)", f.Name, err)
		}
	}
	r.Alive = unix.PidfdSendSignal(descriptor(files, "pidfd:child:0"), 0, nil, 0) == nil
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	r.Soft = l.Cur
	var err error
	if r.Next, r.SigIgn, err = whatChildrenGet(); err != nil {
		return err
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	r.FDs = len(fds)
	return json.NewEncoder(os.Stdout).Encode(r)
}

// whatChildrenGet returns the soft RLIMIT_NOFILE of a new child and whether it
// has SIGHUP ignored.
func whatChildrenGet() (nofile uint64, hupIgnored bool, err error) {
	out, err := exec.Command("sh", "-c", "ulimit -Sn; grep SigIgn: /proc/self/status").Output()
	if err != nil {
		return 0, false, err
	}
	var mask uint64
	if _, err := fmt.Sscanf(string(out), "%d\nSigIgn:\t%x", &nofile, &mask); err != nil {
		return 0, false, fmt.Errorf("%q: %w", out, err)
	}
	return nofile, mask&(1<<(unix.SIGHUP-1)) != 0, nil
}

// role returns a command that runs this test binary in a role.
func role(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^$")
	cmd.Env = append(os.Environ(), roleEnv+"="+name, dirEnv+"="+t.TempDir())
	cmd.Stderr = os.Stderr
	return cmd
}

func TestFiftyReexecsInAStormOfHangups(t *testing.T) {
	if testing.Short() {
		t.Setenv(shortEnv, "1")
	}
	pidfd := -1
	// A small soft limit, as a service manager gives it: children have to get
	// it back in every generation. A shell sets it without touching our own.
	cmd := role(t, "reexec")
	cmd.Args = append([]string{"sh", "-c", `ulimit -Sn 200; exec "$0" "$@"`}, cmd.Args...)
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path = sh
	cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &pidfd}
	stdin, err := cmd.StdinPipe() // its end ends the child
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)

	var reports []report
	storm := make(chan int, 1)
	var stop atomic.Bool
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var r report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Errorf("%q: %v", lines.Text(), err)
			continue
		}
		if len(reports) == 0 { // it is notified of SIGHUP from now on
			go func() {
				n := 0
				for ; !stop.Load() && unix.PidfdSendSignal(pidfd, passing[n%len(passing)], nil, 0) == nil; n++ {
					runtime.Gosched()
				}
				storm <- n
			}()
		}
		reports = append(reports, r)
	}
	stop.Store(true)
	if len(reports) > 0 {
		t.Logf("%d signals sent", <-storm)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if len(reports) != generations()+1 {
		t.Fatalf("%d reports, want %d", len(reports), generations()+1)
	}
	// The first image may have descriptors of the shell that ran the test;
	// they are close-on-exec in the second and gone in the third.
	for i, r := range reports {
		want := reports[0]
		want.Generation, want.FDs = i, reports[2].FDs
		if i < 2 {
			want.FDs = r.FDs
		}
		if d := cmp.Diff(want, r); d != "" {
			t.Fatalf("generation %d: %s", i, d)
		}
	}
	if r := reports[0]; !r.Alive || r.SigIgn || r.Next != 200 || r.Soft <= 200 || len(r.Inodes) != 7 {
		t.Errorf("%+v", r)
	}
}

// playFailedExec is a process whose execve fails, more than once.
func playFailedExec() error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, unix.SIGHUP)
	files, err := makeFiles()
	if err != nil {
		return err
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		return err
	}
	if err := describe(0, files); err != nil { // also sets up the runtime's own
		return err
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	dir := os.Getenv(dirEnv)
	noexec := filepath.Join(dir, "noexec")
	if err := os.WriteFile(noexec, []byte("nothing that runs"), 0o700); err != nil {
		return err
	}
	for path, want := range map[string]error{
		filepath.Join(dir, "missing"): unix.ENOENT, dir: unix.EACCES, noexec: unix.ENOEXEC, "a\x00b": unix.EINVAL,
	} {
		err := Exec(path, os.Args, os.Environ(), new(Saved), files)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "exec "+path) {
			return fmt.Errorf("%q: %v, want %v", path, err, want)
		}
		var after unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &after); err != nil || after != before {
			return fmt.Errorf("limit %v, was %v (%v)", after, before, err)
		}
		// describe checks close-on-exec.
		if err := describe(0, files); err != nil {
			return err
		}
	}
	now, err := os.ReadDir("/proc/self/fd")
	if err != nil || len(now) != len(fds) {
		return fmt.Errorf("%d descriptors, were %d (%v)", len(now), len(fds), err)
	}
	// The channel still gets SIGHUP, and children do not ignore it.
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	if err := unix.PidfdSendSignal(self, unix.SIGHUP, nil, 0); err != nil {
		return err
	}
	select {
	case <-hup:
	case <-time.After(10 * time.Second):
		return errors.New("SIGHUP is lost after a failed execve")
	}
	if _, ignored, err := whatChildrenGet(); err != nil || ignored {
		return fmt.Errorf("children ignore SIGHUP: %v, %v", ignored, err)
	}
	// The next image gets the limit that this one was started with: a shell,
	// as Go would raise it again. It has nothing to do with the state.
	sh, err := exec.LookPath("sh")
	if err != nil {
		return err
	}
	pidfd := descriptor(files, "pidfd:child:0")
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil {
		return err
	}
	return Exec(sh, []string{"sh", "-c", "ulimit -Sn; grep SigIgn: /proc/self/status"}, os.Environ(), new(Saved), nil)
}

func TestFailedExecChangesNothing(t *testing.T) {
	cmd := role(t, "failedexec")
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path, cmd.Args = sh, append([]string{"sh", "-c", `ulimit -Sn 200; exec "$0" "$@"`}, cmd.Args...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var mask uint64
	if n := len(lines); n < 2 || lines[n-2] != "200" {
		t.Errorf("the next image does not get the original limit, 200: %q", lines)
	} else if _, err := fmt.Sscanf(lines[n-1], "SigIgn:\t%x", &mask); err != nil || mask&1 == 0 {
		t.Errorf("SIGHUP is not ignored in the next image: %q, %v", lines[n-1], err)
	}
}

func TestCheckFiles(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	fd, other := int(r.Fd()), int(w.Fd())
	for want, files := range map[string][]File{
		"descriptor 1":        {{"fifo:a", 1}},
		"is no pidfd":         {{"pidfd:a", fd}},
		"is no listener":      {{"listener:a", fd}},
		"is no netlink":       {{"netlink:a", fd}},
		"is no socket":        {{"socket:a", fd}},
		"is no file":          {{"file:a", fd}},
		"no such kind":        {{"pipe:a", fd}},
		`"fifo:a": name or`:   {{"fifo:a", fd}, {"fifo:a", other}},
		`"fifo:b": name or`:   {{"fifo:a", fd}, {"fifo:b", fd}},
		"bad file descriptor": {{"fifo:a", 1 << 20}},
	} {
		err := CheckFiles(files)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", files, err, want)
		}
	}
	if err := CheckFiles([]File{{"fifo:a", fd}, {"fifo:b", other}}); err != nil {
		t.Error(err)
	}
}
