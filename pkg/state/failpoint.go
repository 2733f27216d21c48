//go:build !failpoint

package state

// Failpoint names a step at which a test may kill the daemon: see the other
// file of that name. Without the build tag failpoint it is nothing.
func Failpoint(string) {}

// Failpoints is Failpoint for a package that must not know this one; nil without
// the build tag.
func Failpoints() func(string) { return nil }
