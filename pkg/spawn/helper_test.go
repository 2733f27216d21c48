package spawn

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// helpers run in a process of their own; see TestMain.
var helpers = map[string]func() error{
	"plain":    helpPlain,
	"oom":      helpOOM,
	"limit":    helpLimit,
	"looked":   helpLooked,
	"nproc":    helpNproc,
	"files":    helpFiles,
	"nest":     helpNest,
	"dies":     helpDies,
	"unexeced": helpUnexeced,
	"end":      helpEnd,
	"sigchld":  helpSIGCHLD,
	"sibling":  helpSibling,

	"controllers": helpControllers,
	"refused":     helpRefused,
	"hungry":      helpHungry,
	"starved":     helpStarved,
	"subgroup":    helpSubgroup,

	"lift":           LiftControllers,
	"lift-elsewhere": helpLiftElsewhere,
}

func runHelper(t *testing.T, name string, wrap ...string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append(wrap, exe)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "SPAWN_TEST_HELPER="+name)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	return string(out)
}

// helpEvents returns n events of p.
func helpEvents(p *Pool, n int) ([]Event, error) {
	var all []Event
	deadline := time.Now().Add(time.Minute)
	for {
		if all = p.Events(all); len(all) >= n {
			return all, nil
		}
		p.Wait(time.Until(deadline))
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("only these events came: %+v", all)
		}
	}
}

// TestLimit checks that a child gets the descriptor limit that this process
// was started with, and not the one that the Go runtime made of it.
func TestLimit(t *testing.T) {
	for _, ulimit := range []string{"ulimit -Sn 300", "ulimit -n 300", "ulimit -Sn 299; ulimit -Hn 300"} {
		got := runHelper(t, "limit", "/bin/sh", "-c", ulimit+`; ulimit -Sn; ulimit -Hn; exec "$0"`)
		var soft, hard, childSoft, childHard, forkSoft, forkHard int
		if _, err := fmt.Sscan(got, &soft, &hard, &childSoft, &childHard, &forkSoft, &forkHard); err != nil {
			t.Fatal(err, got)
		}
		if childSoft != soft || childHard != hard || forkSoft != soft || forkHard != hard {
			t.Errorf("%s: started with %d/%d, child got %d/%d, by ForkExec %d/%d", ulimit, soft, hard, childSoft, childHard, forkSoft, forkHard)
		}
	}
}

func helpLimit() error {
	for _, fork := range []bool{false, true} {
		p, err := newPool(Options{}, func(p *Pool) { p.fork = p.fork || fork })
		if err != nil {
			return err
		}
		if want := mayBeHeld(maxDescriptors()); p.mostHeld != want {
			return fmt.Errorf("%d cgroups are kept open, not %d", p.mostHeld, want)
		}
		p.Start(1, &Spec{Path: "sleep", Args: []string{"sleep", "1000"}})
		ev, err := helpEvents(p, 1)
		if err != nil {
			return err
		}
		var l unix.Rlimit
		if err := unix.Prlimit(ev[0].PID, unix.RLIMIT_NOFILE, nil, &l); err != nil {
			return err
		}
		fmt.Println(l.Cur, l.Max)
		if err := signalOne(p, 1, int(unix.SIGKILL)); err != nil {
			return err
		}
		if _, err := helpEvents(p, 1); err != nil {
			return err
		}
		p.Close()
	}
	return nil
}

// TestLimitIsLookedAt: that our own limit is what Go made of it is taken for granted for a
// second, and that it is not is not.
func TestLimitIsLookedAt(t *testing.T) {
	if got := runHelper(t, "looked", "/bin/sh", "-c", `ulimit -Sn 300; exec "$0"`); got != "true true false true\n" {
		t.Errorf("looked: %s", got)
	}
}

func helpLooked() error {
	o, err := originalLimit()
	if err != nil {
		return err
	}
	first := o.look(time.Second)
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	lower := unix.Rlimit{Cur: l.Cur - 1, Max: l.Max}
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &lower, nil); err != nil {
		return err
	}
	soon, later := o.look(2*time.Second-1), o.look(2*time.Second)
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &l, nil); err != nil {
		return err
	}
	fmt.Println(first, soon, later, o.look(2*time.Second+1))
	return nil
}

// TestNoProcesses lets clone fail with EAGAIN.
func TestNoProcesses(t *testing.T) { runHelper(t, "nproc") }

func helpNproc() error {
	Prewarm(12)
	p, err := New(Options{})
	if err != nil {
		return err
	}
	if os.Getuid() == 0 {
		// Root has no such limit. Tens of thousands may be taken by others.
		if err := syscall.Setuid(54321); err != nil {
			return err
		}
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &l); err != nil {
		return err
	}
	spec := &Spec{Path: "/bin/true"}
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: 1, Max: l.Max}); err != nil {
		return err
	}
	p.Start(1, spec)
	ev, err := helpEvents(p, 1)
	if err != nil {
		return err
	}
	if ev[0].Kind != StartFailed || *ev[0].Err != (StartError{Op: "clone", Errno: syscall.EAGAIN}) {
		return fmt.Errorf("not EAGAIN: %+v", ev[0])
	}
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &l); err != nil {
		return err
	}
	p.Start(2, spec)
	if ev, err = helpEvents(p, 2); err != nil || ev[1].Kind != Exited {
		return fmt.Errorf("did not recover: %+v, %v", ev, err)
	}
	p.Close()
	return nil
}

// TestNoFiles lets a start meet EMFILE, and a group be watched all the same.
func TestNoFiles(t *testing.T) { runHelper(t, "files") }

func helpFiles() error {
	// To make room takes the last descriptor for a moment.
	p, err := newPool(Options{}, func(p *Pool) { p.room = math.MaxInt })
	if err != nil {
		return err
	}
	// Few are used up sooner than what the host allows.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 300, Max: 300}); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "spawn")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := startShell(p, 1, dir, "sleep 1000 & echo; exec sleep 1000", Place{}); err != nil {
		return err
	}
	if _, err := helpEvents(p, 1); err != nil {
		return err
	}
	var fds []int
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == unix.EMFILE {
			break
		}
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	for token, spec := range map[Token]*Spec{
		3: {Path: "/bin/true"},
		4: {Path: "/bin/true", Stdout: Stdio{Path: "/dev/zero", Flags: unix.O_WRONLY}},
	} {
		p.Start(token, spec)
		ev, err := helpEvents(p, 1)
		if err != nil {
			return err
		}
		if ev[0].Kind != StartFailed || !errors.Is(ev[0].Err, syscall.EMFILE) {
			return fmt.Errorf("start %s: %+v", strconv.Itoa(int(token)), ev[0])
		}
	}
	for _, kill := range []func(Token, int) error{func(t Token, sig int) error { return signalOne(p, t, sig) }, p.SignalTree} {
		if err := kill(1, int(unix.SIGKILL)); err != nil {
			return err
		}
		var ev []Event
		for len(ev) == 0 || ev[len(ev)-1].Kind == TreeSignaled {
			more, err := helpEvents(p, 1)
			if err != nil {
				return err
			}
			ev = append(ev, more...)
		}
		if last := ev[len(ev)-1]; last.Token != 1 || last.Kind != Exited && last.Kind != TreeEmpty {
			return fmt.Errorf("%+v", ev)
		}
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	p.Start(5, &Spec{Path: "/bin/true"})
	if ev, err := helpEvents(p, 2); err != nil || ev[1].Kind != Exited {
		return fmt.Errorf("did not recover: %+v, %v", ev, err)
	}
	p.Close()
	return nil
}

// signalOne signals one main process.
func signalOne(p *Pool, t Token, sig int) error {
	return p.Signal([]Signal{{Token: t, Signal: sig}})[0]
}
