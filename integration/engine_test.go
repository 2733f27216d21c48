package integration

import "testing"

// TestReexecKeepsProcesses is the least that a re-exec has to do.
func TestReexecKeepsProcesses(t *testing.T) {
	d := startDaemon(t, "entries:\n  a: {command: sleep 1000, count: 3}\n", options{})
	before := d.identities(d.running("a", 3).entry("a"))
	resources := descriptors(t, d.pid)
	s := d.reexec()
	if s.Daemon.PID != d.pid {
		t.Errorf("the pid is %d, and was %d", s.Daemon.PID, d.pid)
	}
	d.same(before, s.entry("a"))
	d.sameResources(resources)
	d.stop()
}
