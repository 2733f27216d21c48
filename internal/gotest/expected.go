package main

import "strings"

// expected returns why a skip with that reason is all right in the full run,
// or "" if it is not. This is the one list of such skips. A full run is root
// on Debian 12 with the packages that .ci/run installs.
func expected(reason string) string {
	for _, e := range [...]struct{ prefix, why string }{
		{"needs a plain user:", "the full run is root's; the tests that matter drop to nobody by themselves"},
		{"needs dinit:", "Debian 12 has no such package; the benchmark compares with it where it is installed"},
		{"needs CAP_SYS_RESOURCE:", "root in a container lacks it; what it is for fails there with the name of the step"},
		{"needs cgroup v2:", "containers and hosts with v1 alone lack it; sentryd says so and goes on"},
	} {
		if strings.HasPrefix(reason, e.prefix) {
			return e.why
		}
	}
	return ""
}
