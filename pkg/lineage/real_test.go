package lineage

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
	"github.com/sentryd/sentryd/pkg/procevents"
)

// The test binary is also the program that some tests run.
func TestMain(m *testing.M) {
	switch os.Getenv("LINEAGE_TEST") {
	case "leader": // its first thread ends alone
		go waitAndExit(3)
		// Syscall, not RawSyscall: the runtime has to know that the thread is away.
		_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
	case "exec": // another thread than the first executes
		go func() {
			runtime.LockOSThread()
			os.Setenv("LINEAGE_TEST", "wait")
			panic(syscall.Exec("/proc/self/exe", []string{"waiting"}, os.Environ()))
		}()
		select {}
	case "wait":
		waitAndExit(4)
	}
	os.Exit(m.Run())
}

// init runs on the thread that leads the process. Locked here, TestMain stays
// on it.
func init() {
	if os.Getenv("LINEAGE_TEST") != "" {
		runtime.LockOSThread()
	}
}

func waitAndExit(code int) {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(code)
}

// edge is the real kernel's side: a connector with its reader, cgroups, and the
// owner's part.
type edge struct {
	t       *testing.T
	tracker *Tracker[string]
	dir     string        // the cgroup above those of the roots
	heard   chan struct{} // holds a token when events were applied
	cgroups map[string]string
	crashes []Crash[string]
	looks   int
	lists   int
}

func newEdge(t *testing.T, buffer int) *edge {
	t.Helper()
	testenv.Need(t, testenv.Root(), testenv.Connector(), testenv.Cgroup2())
	e := &edge{t: t, tracker: New[string](0), heard: make(chan struct{}, 1), cgroups: map[string]string{}}
	e.dir = makeCgroup(t)
	l, err := procevents.Dial(procevents.Config{Buffer: buffer})
	if err != nil {
		t.Fatal(err)
	}
	e.tracker.Lost(monotonic(t))
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		events := make([]procevents.Event, 256)
		for {
			n, err := l.Receive(events)
			switch {
			case errors.Is(err, procevents.ErrLost):
				now, _ := clock(unix.CLOCK_MONOTONIC)
				e.tracker.Lost(now)
			case err != nil:
				return
			}
			e.tracker.Apply(events[:n])
			select {
			case e.heard <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() { l.Close(); <-stopped })
	return e
}

func monotonic(t *testing.T) time.Duration {
	t.Helper()
	now, err := clock(unix.CLOCK_MONOTONIC)
	if err != nil {
		t.Fatal(err)
	}
	return now
}

// makeCgroup makes a cgroup of the test's own below the v2 mount, and has it
// emptied and removed at the end.
func makeCgroup(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	mount := ""
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			mount = f[1]
		}
	}
	dir, err := os.MkdirTemp(mount, "lineage-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		emptyCgroup(t, dir)
		subs, _ := filepath.Glob(dir + "/root-*")
		for _, d := range append(subs, dir) {
			if err := os.Remove(d); err != nil {
				t.Error(err)
			}
		}
	})
	return dir
}

// emptyCgroup kills all in a cgroup and waits until it is empty.
func emptyCgroup(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(dir+"/cgroup.kill", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir + "/cgroup.events")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text := make([]byte, 256)
	for {
		n, err := f.ReadAt(text, 0)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if strings.Contains(string(text[:n]), "populated 0") {
			return
		}
		// A change of the file is an exceptional condition, cgroups(7).
		poll := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if n, err := unix.Poll(poll, 10_000); n == 0 {
			t.Fatalf("%s is not empty after 10 s", dir)
		} else if err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
	}
}

// program is a main process in a cgroup of its own.
type program struct {
	key   string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
}

func (e *edge) start(key string, argv ...string) *program {
	e.t.Helper()
	dir := filepath.Join(e.dir, "root-"+key)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		e.t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		e.t.Fatal(err)
	}
	defer d.Close()
	p := &program{key: key, cmd: exec.Command(argv[0], argv[1:]...)}
	p.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(d.Fd())}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		e.t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	p.lines = bufio.NewScanner(stdout)
	if err := p.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.cgroups[key] = dir
	if !e.tracker.Add(key, int32(p.cmd.Process.Pid), monotonic(e.t)) {
		e.t.Fatal("not added")
	}
	return p
}

// end empties the program's cgroup and forgets it.
func (e *edge) end(p *program) {
	e.t.Helper()
	emptyCgroup(e.t, e.cgroups[p.key])
	p.stdin.Close()
	_ = p.cmd.Wait()
	e.tracker.Remove(p.key)
	if err := os.Remove(e.cgroups[p.key]); err != nil {
		e.t.Error(err)
	}
	delete(e.cgroups, p.key)
}

// serve does what the tracker asks for.
func (e *edge) serve() {
	e.t.Helper()
	news := e.tracker.Take()
	e.crashes = append(e.crashes, news.Crashes...)
	for _, l := range news.Looks {
		r, err := NewReader("/proc")
		if err != nil {
			e.t.Fatal(err)
		}
		at, found, err := r.Process(l.PID)
		if err != nil {
			e.t.Fatal(err)
		}
		e.tracker.Answer(l, found, at)
		e.looks++
	}
	if news.Listing {
		l, err := List("/proc", e.cgroups)
		if err != nil {
			e.t.Fatal(err)
		}
		if e.tracker.Rebuild(l) {
			e.lists++
		}
	}
}

// until serves until ok says so, which is asked again after each event.
func (e *edge) until(within time.Duration, ok func() error) {
	e.t.Helper()
	deadline := time.After(within)
	again := time.NewTicker(20 * time.Millisecond) // for what has no event: the end of a zombie
	defer again.Stop()
	for {
		e.serve()
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-e.heard:
		case <-again.C:
		case <-deadline:
			e.t.Fatal(err)
		}
	}
}

// same compares the members of all roots with their cgroups' member lists.
func (e *edge) same() error {
	for key, dir := range e.cgroups {
		want, err := Cgroup(dir)
		if err != nil {
			return err
		}
		got := pids(e.tracker, key)
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("%s: members %v, in the cgroup %v", key, got, want)
		}
	}
	return nil
}

// A worker whose first thread ends, and one that executes from another thread,
// are still the same living processes, and their ends are told as they were.
func TestRealThreads(t *testing.T) {
	for role, code := range map[string]int{"leader": 3, "exec": 4} {
		t.Run(role, func(t *testing.T) {
			e := newEdge(t, 0)
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			// The worker's input is the shell's, which closes its own.
			p := e.start("a", "sh", "-c", `exec 3<&0 0</dev/null; LINEAGE_TEST=`+role+` "$0" <&3 3<&- & exec 3<&-; wait; echo ended; read x`, self)
			e.until(20*time.Second, func() error {
				tree := e.tracker.Tree("a")
				if len(tree) == 2 && (role == "leader" && tree[1].LeaderGone || role == "exec" && e.executed() == 3) {
					return e.same()
				}
				return fmt.Errorf("%+v", tree)
			})
			worker := e.tracker.Tree("a")[1].PID
			p.stdin.Close()
			e.until(20*time.Second, func() error {
				if len(e.crashes) == 0 {
					return errors.New("no crash is told")
				}
				return e.same()
			})
			if c := e.crashes[0]; len(e.crashes) != 1 || c.PID != worker || c.Status.ExitStatus() != code {
				t.Errorf("%+v, want pid %d and code %d", e.crashes, worker, code)
			}
			if c, _ := e.tracker.Counts("a"); c.Forks != 1 || c.Exited() != 1 || c.Exits[Failure] != 1 {
				t.Errorf("%+v", c)
			}
			e.end(p)
		})
	}
}

// executed counts the shell's execve, the worker's, and that of its thread.
func (e *edge) executed() uint64 {
	c, _ := e.tracker.Counts("a")
	return c.Execs
}

// stormScript does what each letter of a line of its input says, and prints a
// line when it has. What it leaves behind sleeps.
const stormScript = `
while read ops; do
	while [ -n "$ops" ]; do
		op=${ops%"${ops#?}"}; ops=${ops#?}
		case $op in
		f) sleep 1000 & last=$! ;;
		d) ( sleep 1000 & ) ;;
		s) setsid sleep 1000 & ;;
		o) ( setsid sh -c 'sleep 1000 & exit 0' & ) ;;
		g) ( ( ( sleep 1000 & ) & ) & ) ;;
		t) /bin/true ;;
		x) sh -c 'exit 3' & ;;
		e) ( exec /no/such/program ) 2>/dev/null ;;
		c) ( exec sh -c 'exec sleep 1000' ) & ;;
		k) if [ -n "$last" ]; then kill -9 $last; wait $last; last=; fi ;;
		esac
	done 2>/dev/null
	echo done
done`

// TestRealStorm: 20 programs fork, fork twice, make sessions, execute, kill and
// end at random; at every quiet point the members are those of the cgroups.
// SENTRYD_SOAK=1 makes it ten minutes.
func TestRealStorm(t *testing.T) {
	testenv.Need(t, testenv.Tool("setsid"))
	for name, buffer := range map[string]int{"roomy": 16 << 20, "overrun": 4096} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, buffer)
			soon := 5 * time.Second
			if name == "overrun" {
				soon = time.Minute // while others on the host fork, events are lost again and again
			}
			lasts := 3 * time.Second
			if os.Getenv("SENTRYD_SOAK") == "1" {
				lasts = 10 * time.Minute
			}
			const roots, seed = 20, 7
			r := rand.New(rand.NewPCG(seed, 0))
			programs := make([]*program, roots)
			for i := range programs {
				programs[i] = e.start(fmt.Sprint(i, "-1"), "sh", "-c", stormScript)
			}
			rounds, restarts := 0, 0
			for begin := time.Now(); time.Since(begin) < lasts || rounds < 3; rounds++ {
				for _, p := range programs {
					ops := make([]byte, 1+r.IntN(12))
					for i := range ops {
						ops[i] = "fdsogtxecktttxxk"[r.IntN(16)]
					}
					if _, err := fmt.Fprintf(p.stdin, "%s\n", ops); err != nil {
						t.Fatal(err)
					}
				}
				for _, p := range programs {
					if !p.lines.Scan() {
						t.Fatalf("seed %d, round %d: %s ended: %v", seed, rounds, p.key, p.lines.Err())
					}
				}
				// A quiet point: what is still ending takes a moment.
				e.until(soon, e.same)
				for i, p := range programs {
					if r.IntN(8) == 0 { // all of it is killed, and started anew
						e.end(p)
						restarts++
						programs[i] = e.start(fmt.Sprintf("%d-%d", i, rounds+2), "sh", "-c", stormScript)
					}
				}
			}
			e.until(soon, e.same)
			members, total := 0, Counts{}
			for _, p := range programs {
				c, _ := e.tracker.Counts(p.key)
				members += c.Descendants
				total.Forks += c.Forks
				total.Found += c.Found
				if c.Forks+c.Found != uint64(c.Descendants)+c.Exited() {
					t.Errorf("%s: %+v do not add up", p.key, c)
				}
				e.end(p)
			}
			t.Logf("%d rounds, %d restarts, %d members at the end, %d forks heard and %d members found, %d looks, %d listings", rounds, restarts, members, total.Forks, total.Found, e.looks, e.lists)
			if name == "roomy" && total.Found != 0 {
				t.Errorf("%d members were found and not heard", total.Found)
			}
		})
	}
}
