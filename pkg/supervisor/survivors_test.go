package supervisor

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
	"github.com/sentryd/sentryd/pkg/procevents"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
	"github.com/sentryd/sentryd/pkg/view"
)

// earlierKernel is pkg/spawn as on a kernel before 6.15 whose init is faster than
// everybody else: it never knows how a survivor ended.
type earlierKernel struct{ *spawn.Pool }

func (p earlierKernel) Events(dst []spawn.Event) []spawn.Event {
	before := len(dst)
	dst = p.Pool.Events(dst)
	for i := before; i < len(dst); i++ {
		dst[i].Status = spawn.Status{}
	}
	return dst
}

func (p earlierKernel) Untold() (list []spawn.Token) {
	for _, c := range p.Children() {
		if c.Survivor && !c.Reaped {
			list = append(list, c.Token)
		}
	}
	return list
}

// orphanage starts scripts as children of a shell that reaps them at once. At the
// end of the test the gate that they wait at is opened.
func orphanage(t *testing.T, gate string, scripts []string) (pids []int) {
	t.Helper()
	dir := t.TempDir()
	var parent strings.Builder
	for i, text := range scripts {
		path := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&parent, "sh %s & echo $!\n", path)
	}
	cmd := exec.Command("sh", "-c", parent.String()+"exec >&-\nwait\n")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer openGate(t, gate).Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the orphanage: %v", err)
		}
	})
	for lines := bufio.NewScanner(out); len(pids) < len(scripts) && lines.Scan(); {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if len(pids) != len(scripts) {
		t.Fatalf("%d processes of %d", len(pids), len(scripts))
	}
	return pids
}

// openGate opens a FIFO for all who wait to read it, until it is closed.
func openGate(t *testing.T, gate string) *os.File {
	f, err := os.OpenFile(gate, os.O_RDWR, 0)
	if err != nil {
		t.Error(err)
	}
	return f
}

// TestSurvivorsOfAnEarlierKernel has adopted processes end on the real kernel, with
// nothing but the connector to tell how: of one thread in every way, and of several
// in such ways that the first thread's code is not the process's.
func TestSurvivorsOfAnEarlierKernel(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.Connector(), testenv.Tool("python3"))
	for _, forks := range []bool{false, true} {
		t.Run(fmt.Sprint("forks=", forks), func(t *testing.T) { checkEarlierKernel(t, forks) })
	}
}

func checkEarlierKernel(t *testing.T, forks bool) {
	gate := filepath.Join(t.TempDir(), "gate")
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	var scripts, want []string
	add := func(script, end string) {
		scripts = append(scripts, "ulimit -c 0\n"+script+"\n")
		want = append(want, end)
	}
	for code := range 256 {
		add(fmt.Sprintf(": < %s; exit %d", gate, code), fmt.Sprint("exited ", code))
	}
	for _, s := range []unix.Signal{unix.SIGHUP, unix.SIGILL, unix.SIGABRT, unix.SIGKILL, unix.SIGSEGV, unix.SIGPIPE, unix.SIGTERM, unix.SIGSYS, 64} {
		add(fmt.Sprintf(": < %s; kill -%d $$", gate, s), "signaled "+signalName(int(s)))
	}
	python := func(end, program string) {
		add(fmt.Sprintf(`exec python3 -c '
import ctypes, os, threading
def also(f): threading.Thread(target=f, daemon=True).start()
wait = threading.Event().wait
def gate(): open("%s")
def leave(): ctypes.CDLL(None).syscall(%d, 0)
def left():
    while open("/proc/self/stat").read().rpartition(")")[2].split()[0] != "Z": wait(0.001)
%s'`, gate, unix.SYS_EXIT, program), end)
	}
	several := len(want)
	for range 4 {
		python("exited 7", "also(lambda: (gate(), os._exit(7))); gate(); leave()")
		python("exited 8", "also(lambda: (gate(), left(), os._exit(8))); gate(); leave()")
		python("exited 5", "also(wait); gate(); os._exit(5)")
		python("exited 6", "gate(); also(lambda: os._exit(6)); leave()")
		python("signaled SIGSEGV", "also(wait); gate(); os.kill(os.getpid(), 11); wait()")
	}
	sure := len(want)
	python("signaled SIGKILL", "also(wait); gate(); os.kill(os.getpid(), 9)")
	python("exited 9", `also(wait); gate(); os.execv("/bin/sh", ["sh", "-c", "exit 9"])`)

	pids := orphanage(t, gate, scripts)
	b := &bed{edge: newEdge(t), path: filepath.Join(t.TempDir(), "test.yaml")}
	b.write(fmt.Sprintf("entries: {a: {command: /bin/false, restart: never, count: %d}}", len(scripts)))
	kinds := []procevents.Kind{procevents.Exit}
	if forks {
		kinds = nil
	}
	b.dial = func() (Connector, error) { return procevents.Dial(procevents.Config{Kinds: kinds, Buffer: 64 << 20}) }
	pool, err := spawn.New(spawn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	o := b.options(b.path)
	o.Processes, o.Forks = earlierKernel{pool}, forks
	o.Clock = Clock{Now: func() fsm.Instant { return monotonic(t) }, Wall: time.Now}
	left := &Remains{marked: make(map[slotKey]*remnant)}
	for i, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		left.marked[slotKey{"a", i}] = &remnant{id: fsm.ID{Entry: "a", Slot: i, Incarnation: 1}, pid: pid, pidfd: fd}
	}
	s, err := Adopt(o, Search{}, left, nil)
	if err != nil {
		t.Fatal(err)
	}
	stop, heard, done := make(chan struct{}), make(chan struct{}), make(chan Outcome)
	go func() {
		s.Witness.Run(stop)
		close(heard)
	}()
	go func() { done <- s.Run() }()
	t.Cleanup(func() {
		close(stop)
		s.Witness.Close()
		<-heard
	})
	defer openGate(t, gate).Close()
	patience := time.After(testenv.Slow(60 * time.Second))
	for state := s.State(); state.Entry("a").Exits < uint64(len(want)); {
		next := make(chan *view.State, 1)
		go func() { next <- s.Wait(t.Context(), state.Version) }()
		select {
		case state = <-next:
		case <-patience:
			t.Fatalf("%d of %d have ended", state.Entry("a").Exits, len(want))
		}
	}
	untold := 0
	for i, p := range s.State().Entry("a").Processes {
		x := p.LastExit
		got := x.Reason + " " + x.Signal
		if x.Code != nil {
			got = fmt.Sprint(x.Reason, " ", *x.Code)
		}
		switch {
		case x.Reason != "unknown" && got != want[i]:
			t.Errorf("%q: %s, want %s", scripts[i], got, want[i])
		case x.Reason == "unknown" && (i < several || i >= sure):
			t.Logf("%q: %s", scripts[i], x.Error)
			untold++
		case i >= several && i < sure && !strings.HasSuffix(x.Error, whySeveral):
			t.Errorf("%q: %s, because %q", scripts[i], got, x.Error)
		}
	}
	if untold*20 > len(want) {
		t.Errorf("%d of %d are not told; %d events were lost", untold, len(want), s.Witness.lost.Load())
	}
	s.Shutdown(t.Context(), false)
	if o := <-done; o != Finished {
		t.Errorf("outcome %v", o)
	}
}

func monotonic(t *testing.T) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Error(err)
	}
	return time.Duration(ts.Nano())
}
