package integration

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHangupStorm sends SIGHUPs at a rate at which each re-exec meets several,
// at every moment of it. The last one of all must not be lost.
func TestHangupStorm(t *testing.T) {
	n := often(200, 2000, 20000)
	const steady = 50
	config := func(count int) string {
		return fmt.Sprintf(`
entries:
  steady: {command: sleep 100000, count: %d}
  churn: {command: sleep 0.02, count: 4, delay: 10}
  marker: {command: sleep 100000, count: %d}
`, steady, count)
	}
	d := startDaemon(t, config(1), options{})
	ids := d.identities(d.running("steady", steady).entry("steady"))
	every := time.NewTicker(time.Millisecond)
	defer every.Stop()
	for range n {
		<-every.C
		d.alive()
		d.signal(unix.SIGHUP)
	}
	d.configure(config(2))
	d.signal(unix.SIGHUP)
	s := d.running("marker", 2)
	d.same(ids, s.entry("steady"))
	if e := s.entry("steady"); e.Starts != steady || e.Exits != 0 {
		t.Errorf("steady: %d starts, %d exits", e.Starts, e.Exits)
	}
	if s.Daemon.PID != d.pid || s.Daemon.Reexecs == 0 {
		t.Errorf("pid %d, was %d; %d re-execs", s.Daemon.PID, d.pid, s.Daemon.Reexecs)
	}
	checkCounters(t, s)
	t.Logf("%d SIGHUPs, %d re-execs", n, s.Daemon.Reexecs)
	d.stop()
}

// TestTermInReexec sends SIGTERM at moments from before a re-exec to after it.
// It has to be obeyed, or to end the daemon as SIGKILL would: the processes
// live on then.
func TestTermInReexec(t *testing.T) {
	rounds := often(4, 16, 200)
	obeyed := 0
	for n := range rounds {
		d := startDaemon(t, "entries: {a: {command: sleep 100000, count: 3}}\n", options{})
		pids := d.running("a", 3).entry("a").pids()
		d.signal(unix.SIGHUP)
		// Not a wait for something: the moment to be tried.
		<-time.After(time.Duration(n*80/rounds) * time.Millisecond)
		d.signal(unix.SIGTERM)
		select {
		case <-d.ended:
		case <-time.After(patience):
			t.Fatalf("round %d: the daemon is still there\n%s", n, d)
		}
		if exitCodeOf(d.err) == 0 {
			obeyed++
			d.finish(0)
			continue
		}
		d.done = true
		if code := exitCodeOf(d.err); code != -1 {
			t.Errorf("round %d: exit code %d\n%s", n, code, d)
		}
		for _, pid := range pids {
			if !d.kill(pid, unix.SIGKILL) {
				t.Errorf("round %d: the daemon is gone and so is its process %d\n%s", n, pid, d)
			}
		}
	}
	t.Logf("obeyed %d of %d", obeyed, rounds)
	if obeyed == 0 {
		t.Errorf("no SIGTERM of %d was obeyed", rounds)
	}
}
