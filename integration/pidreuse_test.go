package integration

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// TestPidIsAnothers: a process ends while no daemon runs, and a stranger gets its pid.
// The next daemon neither takes it over nor ever sends it a signal.
func TestPidIsAnothers(t *testing.T) {
	testenv.Need(t, testenv.Root())
	bin := built(t, "aspid", "./testdata/aspid")
	d := startDaemon(t, "entries: {a: {command: sleep 100000, count: 3, delay: 10}}\n", options{})
	before := d.running("a", 3).entry("a").pids()
	reused := 0
	for range often(1, 3, 50) {
		d.die()
		if !d.kill(before[0], unix.SIGKILL) {
			t.Fatalf("process %d is not there", before[0])
		}
		d.awaitEnd(before[0])
		pidfd := strangerAs(t, bin, before[0])
		s, _ := d.rise(options{})
		if p := s.process("a", 0); pidfd >= 0 && p.PID == before[0] {
			t.Errorf("the stranger was taken over: %+v", p)
		}
		d.must("restart", "a")
		d.must("stop", "a")
		d.must("start", "a")
		before = d.running("a", 3).entry("a").pids()
		if pidfd < 0 {
			continue // somebody else was faster
		}
		reused++
		if (proc{0, pidfd}).gone(0) {
			t.Errorf("the stranger is gone\n%s", d)
		}
	}
	if reused == 0 {
		t.Error("no pid was used again")
	}
	d.stop()
}

// strangerAs runs a process of that pid until the test ends, and returns a pidfd of
// it, or -1 if another process has the pid.
func strangerAs(t *testing.T, bin string, pid int) int {
	t.Helper()
	again := time.NewTicker(time.Millisecond) // whose it was has to be reaped first
	defer again.Stop()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); <-again.C {
		cmd := exec.Command(bin, strconv.Itoa(pid), "/bin/sleep", "1000")
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil || line != "there\n" {
			cmd.Wait() // it could not
			continue
		}
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil {
				t.Errorf("the stranger: %v", err)
			}
			cmd.Wait()
			unix.Close(pidfd)
		})
		return pidfd
	}
	return -1
}
