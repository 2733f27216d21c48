package spawn

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLiftControllers makes what a dead daemon leaves, with cgroups of a child's own
// in a child's: nobody can enter the service's cgroup before, and all can after.
func TestLiftControllers(t *testing.T) {
	service, run := limitable(t)
	for _, name := range []string{control, "limits", "limits/a:0", "limits/a:0/own"} {
		dir := filepath.Join(service, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Rmdir(dir) })
	}
	for _, name := range []string{"", "limits", "limits/a:0"} {
		if err := writeFile(filepath.Join(service, name, "cgroup.subtree_control"), "+cpu +memory +pids"); err != nil {
			t.Fatal(err)
		}
	}
	if err := enter(t, service); !errors.Is(err, unix.EBUSY) {
		t.Errorf("before, it takes a process (%v): this shows nothing", err)
	}
	run("lift", control)
	if err := enter(t, service); err != nil {
		t.Errorf("after, it takes no process: %v", err)
	}
	for _, name := range []string{"", "limits", "limits/a:0"} {
		if left := readWords(filepath.Join(service, name, "cgroup.subtree_control")); len(left) > 0 {
			t.Errorf("%q below the service passes on %q", name, left)
		}
	}

	// A main process that has a cgroup of its own is in nobody's way.
	sub := filepath.Join(service, leaf)
	if err := errors.Join(os.Mkdir(sub, 0o755), writeFile(filepath.Join(service, "cgroup.subtree_control"), "+pids")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Rmdir(sub) })
	run("lift", control)
	if left := readWords(filepath.Join(service, "cgroup.subtree_control")); len(left) != 1 {
		t.Errorf("it passes on %q", left)
	}
	if out := run("lift-elsewhere", leaf); out != "refused\n" {
		t.Errorf("what is no control process lifts: %q", out)
	}
}

// enter starts a process in a cgroup.
func enter(t *testing.T, dir string) error {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	return cmd.Run()
}

func helpLiftElsewhere() error {
	if err := LiftControllers(); err == nil {
		return errors.New("it was done")
	}
	fmt.Println("refused")
	return nil
}
