package spawn

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOwnSIGCHLD: the signal wakes nobody while there is nobody to wake, exits
// are seen without it, and it is there for orphans.
func TestOwnSIGCHLD(t *testing.T) {
	t.Setenv("SPAWN_TEST_CGROUP", testCgroups(t).Path("own:0"))
	runHelper(t, "sigchld") // no other test has made this process a subreaper
}

func helpSIGCHLD() error {
	p, err := New(Options{OwnSIGCHLD: true})
	if err != nil {
		return err
	}
	defer p.Close()
	p.Start(1, &Spec{Path: "sh", Args: []string{"sh", "-c", "exit 3"}, Env: os.Environ(), Place: Place{Cgroup: os.Getenv("SPAWN_TEST_CGROUP")}})
	ev, err := helpEvents(p, 2)
	if err != nil {
		return err
	}
	if ev[1].Kind != Exited || ev[1].Status.Code != 3 {
		return fmt.Errorf("%+v", ev)
	}
	if err := expectHandler(false); err != nil {
		return err
	}
	// Without a cgroup: orphans are to be reaped from now on.
	p.Start(2, &Spec{Path: "sh", Args: []string{"sh", "-c", "exit 4"}, Env: os.Environ()})
	if ev, err = helpEvents(p, 2); err != nil {
		return err
	}
	if ev[1].Kind != Exited || ev[1].Status.Code != 4 {
		return fmt.Errorf("%+v", ev)
	}
	return expectHandler(true)
}

// expectHandler fails unless this process has a handler for SIGCHLD, or has
// none: proc_pid_status(5).
func expectHandler(want bool) error {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	m := regexp.MustCompile(`SigCgt:\t([0-9a-f]+)`).FindSubmatch(b)
	if m == nil {
		return errors.New("no SigCgt in /proc/self/status")
	}
	set, err := strconv.ParseUint(string(m[1]), 16, 64)
	if err != nil {
		return err
	}
	if got := set>>(unix.SIGCHLD-1)&1 == 1; got != want {
		return fmt.Errorf("SIGCHLD has a handler: %t, not %t", got, want)
	}
	return nil
}
