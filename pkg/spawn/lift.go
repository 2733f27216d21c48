package spawn

import (
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// control is the cgroup, below that of a service with Delegate=yes, in which systemd
// runs what it runs beside the main process: ExecStopPost= and others.
const control = ".control"

// LiftControllers is for such a process of a service whose main process is dead while
// others live: it has the cgroups of the service limit nothing. Before that no process
// may enter the service's own cgroup (cgroups(7), "no internal processes"), where
// systemd would put the next main process. EnableControllers is the way back; memory
// that was in use before it does not count for the new limits. Where the main process
// has a cgroup of its own (DelegateSubgroup=daemon, systemd 254), and where there is no
// cgroup v2 tree, there is nothing to do.
func LiftControllers() error {
	own, err := ownCgroup()
	if err != nil {
		return nil // nothing can be limited where it would not be seen
	}
	service := filepath.Dir(own)
	if filepath.Base(own) != control {
		return fmt.Errorf("the cgroup %s is not one in which systemd runs ExecStopPost= of a service with Delegate=yes", own)
	}
	if unix.Access(filepath.Join(service, leaf), unix.F_OK) == nil {
		return nil
	}
	lift(service)
	if left := readWords(filepath.Join(service, "cgroup.subtree_control")); len(left) > 0 {
		return fmt.Errorf("the cgroup %s still passes on: %s", service, strings.Join(left, ", "))
	}
	return nil
}

// lift disables all controllers below a cgroup, those further down first, as a
// cgroup keeps passing on what one below it does.
func lift(path string) {
	for _, sub := range subCgroups(path) {
		lift(sub)
	}
	disableControllers(path) // the caller looks whether the last one could
}
