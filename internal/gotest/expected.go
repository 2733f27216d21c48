package main

import "strings"

// expected returns why a skip with that reason is all right in the full run,
// or "" if it is not. This is the one list of such skips. A full run is root
// on Debian 12 with the packages that .ci/run installs.
func expected(reason string) string {
	for _, e := range [...]struct{ prefix, why string }{
		{"needs a plain user:", "the full run is root's; the tests that matter drop to nobody by themselves"},
		{"needs dinit:", "Debian 12 has no such package; the benchmark compares with it where it is installed"},
		{"needs the cgroup v2 controllers ", "hosts that use them in v1 trees lack them in the v2 one; sentryd refuses such limits"},
		{"needs the right to enable controllers ", "a container or a service without Delegate= keeps them to itself"},
		{"needs a cgroup v2 tree to write to:", "containers and hosts with v1 alone lack it; sentryd goes by lineage"},
		{"needs cgroup.kill:", "Linux 5.14; before it sentryd freezes, signals and thaws"},
		{"needs cgroup v2:", "containers and hosts with v1 alone lack it; sentryd says so and goes on"},
	} {
		if strings.HasPrefix(reason, e.prefix) {
			return e.why
		}
	}
	return ""
}
