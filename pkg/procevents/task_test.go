package procevents

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// The test binary is also the program that some tests run.
func TestMain(m *testing.M) {
	switch os.Getenv("PROCEVENTS_TEST") {
	case "leader":
		leaderEnds()
	case "supported":
		if err := Supported(); err != nil {
			fmt.Print(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// init runs on the thread that leads the process. Locked here, TestMain stays
// on it.
func init() {
	if os.Getenv("PROCEVENTS_TEST") == "leader" {
		runtime.LockOSThread()
	}
}

// leaderEnds ends the first thread of the process only. The rest waits for the
// end of its input and then exits with code 3.
func leaderEnds() {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	// Syscall, not RawSyscall: the runtime has to know that the thread is away.
	_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
}

// helper is this binary in another role.
func helper(role string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "PROCEVENTS_TEST="+role, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// The trap of the package comment: an Exit with PID == TGID and code 0 while
// the process lives, and its true code only in that of another thread.
func TestLeaderEndsFirst(t *testing.T) {
	l := listen(t, Config{})
	cmd := helper("leader")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := int32(cmd.Process.Pid)
	exits := until(t, l,
		func(e *Event) bool { return e.Kind == Exit && e.PID == pid },
		func(e *Event) bool { return e.Kind == Exit && e.PID == pid })
	if exits[0].IsThread() || exits[0].ExitCode != 0 {
		t.Errorf("%v, want code 0 of the leader", exits[0])
	}
	stdin.Close() // it lives: it must still notice this
	last := until(t, l,
		func(e *Event) bool { return e.Kind == Exit && e.TGID == pid && e.ExitStatus().ExitStatus() == 3 },
		func(e *Event) bool { return e.Kind == Exit && e.TGID == pid })
	for _, e := range last {
		if !e.IsThread() || e.ExitSignal != -1 {
			t.Errorf("%v: exit signal %d, want that of a thread", e, e.ExitSignal)
		}
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
}

// A thread's fork names the parent of its process, not the process.
func TestThread(t *testing.T) {
	l := listen(t, Config{})
	// The goroutine's thread is thrown away when it ends locked to it. Earlier
	// threads may be reused, so take more than there can be idle.
	const n = 64
	release := make(chan struct{})
	tids := make(chan int32, n)
	for range n {
		go func() {
			runtime.LockOSThread()
			tids <- int32(unix.Gettid())
			<-release
		}()
	}
	ours := make(map[int32]bool, n)
	for range n {
		ours[<-tids] = true
	}
	close(release)
	pid := int32(os.Getpid())
	isOurs := func(e *Event) bool { return e.TGID == pid && ours[e.PID] }
	var forks int
	for _, e := range until(t, l, func(e *Event) bool { return isOurs(e) && e.Kind == Exit }, isOurs) {
		switch e.Kind {
		case Fork:
			forks++
			if !e.IsThread() || int(e.ParentTGID) != os.Getppid() {
				t.Errorf("%v, want a thread and parent %d", e, os.Getppid())
			}
		case Exit:
			if !e.IsThread() || e.ExitSignal != -1 {
				t.Errorf("%v: exit signal %d", e, e.ExitSignal)
			}
		}
	}
	if forks == 0 {
		t.Error("no thread was made")
	}
}
