//go:build !failpoint

package state

// Failpoint names a step at which a test may kill the daemon: see the other
// file of that name. Without the build tag failpoint it is nothing.
func Failpoint(string) {}
