package verdict

import (
	"slices"
	"strings"
)

// A Place is where a run takes place, which decides what may be missing there.
type Place string

// The places of runs.
const (
	// Anywhere is a developer's machine: every skip is all right, and those that
	// FullRun expects are marked.
	Anywhere Place = ""
	// FullRun is root on Debian 12 with the packages that .ci/run installs.
	FullRun Place = "full"
	// The virtual machines of `make vm-test`, by their kernels: root on pure
	// cgroup v2, with the tools that internal/vmtest/suite.go lists.
	Linux6_1  Place = "6.1"
	Linux6_12 Place = "6.12"
	// LinuxNewest is one that Debian's users will have.
	LinuxNewest Place = "newest"
)

// expected returns why a skip with that reason is all right at that place, or
// "" if it is not. This is the one list of such skips.
func expected(place Place, reason string) string {
	if place == Anywhere {
		place = FullRun
	}
	vms, old := []Place{Linux6_1, Linux6_12, LinuxNewest}, []Place{Linux6_1, Linux6_12}
	for _, e := range [...]struct {
		places      []Place
		prefix, why string
	}{
		{append(vms, FullRun), "needs a plain user:", "the full run is root's; the tests that matter drop to nobody by themselves"},
		{[]Place{FullRun}, "needs Linux 6.15:", "before it how a main process ends that took over, and so is not the daemon's child, may be unknown, and only after an exit 0 does another take over (TestHandover)"},
		{[]Place{FullRun}, "needs systemd in a virtual machine:", "root's tests of the unit write below /etc; make vm-test boots a systemd for them"},
		{[]Place{FullRun}, "needs dinit:", "Debian 12 has no such package; the benchmark compares with it where it is installed"},
		{[]Place{FullRun}, "needs 25000 descriptors:", "the hard limit is the host's to set; make vm-test has no such limit"},
		{[]Place{FullRun}, "needs CAP_SYS_RESOURCE:", "root in a container lacks it; what it is for fails there with the name of the step"},
		{[]Place{FullRun}, "needs the cgroup v2 controllers ", "hosts that use them in v1 trees lack them in the v2 one; sentryd refuses such limits"},
		{[]Place{FullRun}, "needs the right to enable controllers ", "a container or a service without Delegate= keeps them to itself"},
		{[]Place{FullRun}, "needs a cgroup v2 tree to write to:", "containers and hosts with v1 alone lack it; sentryd goes by lineage"},
		{[]Place{FullRun}, "needs cgroup.kill:", "Linux 5.14; before it sentryd freezes, signals and thaws"},
		{[]Place{FullRun}, "needs cgroup v2:", "containers and hosts with v1 alone lack it; sentryd says so and goes on"},
		{old, "needs Linux 6.15:", "before it nobody keeps the status of a process that another reaps, or follows a main process that hands over to another"},
		{old, "needs PIDFD_INFO_EXIT:", "Linux 6.15 brought it; without it the status comes from the zombie"},
		{[]Place{Linux6_1}, "needs a kernel that can:", "the connector filters by itself since Linux 6.6; the socket filter is tested under both"},
		{[]Place{Linux6_1}, "needs the pidfd to tell of the reap:", "Linux 6.9 brought it"},
		{vms, "needs more time than -short has", "a virtual machine without hardware support is slow: it runs the short forms"},
		{[]Place{Linux6_1}, "needs PIDFD_SIGNAL_PROCESS_GROUP:", "Linux 6.9 brought it; the way without it is tested under both"},
		{vms, "needs a run without -short:", "an emulated machine is slow: it runs the short forms, and -long the others"},
	} {
		if slices.Contains(e.places, place) && strings.HasPrefix(reason, e.prefix) {
			return e.why
		}
	}
	return ""
}
