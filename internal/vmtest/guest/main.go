// Guest is the init of the virtual machine: it makes of a bare kernel what the
// tests need of a host, runs them and switches the machine off.
//
// As PID 1 it only reaps: what is orphaned ends up there, and has to be gone
// for those who wait for an empty cgroup. The tests are run by a second process
// of this program, whose children are then its own. When that has ended, and
// there are tests to be run under systemd, PID 1 becomes systemd, and a third
// process of this program, one of its services, runs those.
//
// It runs nowhere else: it checks that it is PID 1 of a machine that has
// nothing mounted yet.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/vmtest/job"
)

// asRunner is the argument that makes the program the second process.
const asRunner = "run-tests"

func main() {
	if len(os.Args) == 2 && (os.Args[1] == asRunner || os.Args[1] == job.UnderSystemd) {
		if err := runJob(os.Args[1] == job.UnderSystemd); err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
			os.Exit(1)
		}
		return
	}
	if _, err := os.Stat("/proc/self"); os.Getpid() != 1 || err == nil {
		fmt.Fprintln(os.Stderr, "guest: this is the init of a virtual machine, and ends it: run it nowhere else")
		os.Exit(1)
	}
	if err := supervise(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
	unix.Sync()
	// Reset, not power-off, which takes ACPI: qemu was told not to reboot.
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	fmt.Fprintln(os.Stderr, "guest: reboot:", err)
}

// supervise sets the machine up, runs the tests and, if there are such, lets
// systemd run the others.
func supervise() error {
	if err := setUp(); err != nil {
		return err
	}
	j, err := readJob()
	if err != nil {
		return err
	}
	if len(j.Tests) > 0 {
		if err := reapRunner(); err != nil {
			return err
		}
	}
	if len(j.Systemd) == 0 {
		return nil
	}
	const init = "/usr/lib/systemd/systemd"
	return fmt.Errorf("become %s: %w", init, unix.Exec(init, []string{init, "--unit=" + job.Target}, []string{"PATH=" + j.Path, "TERM=dumb"}))
}

// reapRunner starts the runner and reaps whatever ends until the runner has.
func reapRunner() error {
	runner := exec.Command("/proc/self/exe", asRunner)
	runner.Stdout, runner.Stderr = os.Stderr, os.Stderr
	if err := runner.Start(); err != nil {
		return fmt.Errorf("start the runner: %w", err)
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("wait: %w", err)
		case pid == runner.Process.Pid:
			if status.Signaled() {
				return fmt.Errorf("the runner was killed: %v", status.Signal())
			}
			return nil
		}
	}
}

// readJob reads what there is to do.
func readJob() (job.Job, error) {
	var j job.Job
	text, err := os.ReadFile(job.Path)
	if err != nil {
		return j, err
	}
	if err := json.Unmarshal(text, &j); err != nil {
		return j, fmt.Errorf("read %s: %w", job.Path, err)
	}
	return j, nil
}
