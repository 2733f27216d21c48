package integration

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// TestThousand keeps 1,000 children running: starts them, has all of them
// killed in one moment, gets each slot back, and ends them all.
func TestThousand(t *testing.T) {
	n := often(200, 1000, 1000)
	d := startDaemon(t, fmt.Sprintf("entries:\n  a: {command: sleep 100000, count: %d, delay: 0}\n  b: {command: sleep 100000, count: %d, delay: 1}\n", n/2, n/2), options{})
	d.running("a", n/2)
	first := d.running("b", n/2)
	resources := d.resources()
	if got := threads(t, d.pid); got >= 50 {
		t.Errorf("%d threads", got)
	}

	targets := d.open(append(first.entry("a").pids(), first.entry("b").pids()...))
	atOnce(targets, func(p proc) {
		if err := unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0); err != nil {
			t.Errorf("kill %d: %v", p.pid, err)
		}
	})
	again := d.await("all are back", func(s *state) bool {
		a, b := s.entry("a"), s.entry("b")
		return a.Running == n/2 && b.Running == n/2 && a.Exits == uint64(n/2) && b.Exits == uint64(n/2)
	})
	checkCounters(t, again)
	for _, name := range []string{"a", "b"} {
		for slot := range n / 2 {
			p := again.process(name, slot)
			if p.Incarnation != 2 || p.PID == 0 {
				t.Errorf("%s:%d: incarnation %d, pid %d", name, slot, p.Incarnation, p.PID)
			}
			if x := p.LastExit; x == nil || x.Reason != "signaled" || x.Signal != "SIGKILL" || x.Initiator != "process" ||
				x.PID != first.process(name, slot).PID || x.Incarnation != 1 {
				t.Errorf("%s:%d: last exit %+v", name, slot, x)
			}
		}
	}
	d.sameResources(resources)
	if got := threads(t, d.pid); got >= 50 {
		t.Errorf("%d threads", got)
	}
	d.stop()
}

// atOnce calls f for each process, from several goroutines that begin together.
func atOnce(list []proc, f func(proc)) {
	const workers = 4
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			<-begin
			for i := w; i < len(list); i += workers {
				f(list[i])
			}
		})
	}
	close(begin)
	wg.Wait()
}

// TestStopIsParallel stops entries that take a second each in little more than
// one second, and kills those that ignore TERM after their timeout.
func TestStopIsParallel(t *testing.T) {
	bell := newBell(t)
	config := "entries:\n"
	for i := range 20 {
		config += fmt.Sprintf("  slow%d: {command: [sh, -c, 'sleep 100000 & trap \"sleep 1; exit 0\" TERM; echo up > %s; wait']}\n", i, bell.path)
		config += fmt.Sprintf("  deaf%d: {command: [sh, -c, 'trap \"\" TERM; echo up > %s; while :; do sleep 100000; done'], stop: {timeout: 1500}}\n", i, bell.path)
	}
	d := startDaemon(t, config, options{args: []string{"--log.format=json"}})
	for range 40 {
		bell.await("up")
	}
	begin := time.Now()
	d.signal(unix.SIGTERM)
	d.finish(0)
	// Forty of them one after the other would take 50 s.
	if took := time.Since(begin); took < 1500*time.Millisecond || took > testenv.Slow(15*time.Second) {
		t.Errorf("stopping took %v, want a little over 1.5 s", took)
	}
	var records []map[string]string
	lines, _, _ := d.out.state()
	for _, line := range lines {
		records = append(records, parseJSON(t, line))
	}
	for i := range 20 {
		for _, want := range []map[string]string{
			{"msg": "exited", "entry": fmt.Sprintf("slow%d", i), "reason": "exited", "code": "0", "initiator": "shutdown"},
			{"msg": "exited", "entry": fmt.Sprintf("deaf%d", i), "reason": "signaled", "signal": "SIGKILL", "initiator": "shutdown"},
		} {
			if !contains(records, want) {
				t.Errorf("no record with %v\n%s", want, d)
			}
		}
	}
}

// TestSecondTermKills ends at once what would have had an hour.
func TestSecondTermKills(t *testing.T) {
	bell := newBell(t)
	d := startDaemon(t, "entries:\n  deaf: {command: [sh, -c, 'trap \"\" TERM; echo up > "+bell.path+"; while :; do sleep 100000; done'], count: 5, stop: {timeout: 1h}}\n", options{})
	for range 5 {
		bell.await("up")
	}
	d.signal(unix.SIGTERM)
	d.await("all are stopping", func(s *state) bool {
		n := 0
		for _, p := range s.entry("deaf").Processes {
			if p.State == "stopping" {
				n++
			}
		}
		return n == 5
	})
	d.signal(unix.SIGTERM)
	d.finish(0)
}

// TestLeftovers has a main process that leaves a member of its group behind:
// the exit counts at once, and the slot starts again only when the member is
// gone. One entry's members obey TERM, the other's have to be killed.
func TestLeftovers(t *testing.T) {
	bell := newBell(t)
	d := startDaemon(t, `
defaults: {delay: 0, count: 3, stop: {timeout: 700}}
entries:
  mild: {command: [sh, -c, "sleep 100000 & echo m-$SENTRYD_SLOT-$SENTRYD_INCARNATION-$! > `+bell.path+`; [ $SENTRYD_INCARNATION -gt 1 ] && wait; exit 7"]}
  deaf: {command: [sh, -c, "trap '' TERM; (while :; do sleep 100000; done) & echo d-$SENTRYD_SLOT-$SENTRYD_INCARNATION-$! > `+bell.path+`; [ $SENTRYD_INCARNATION -gt 1 ] && wait; exit 7"]}
`, options{})
	members := map[string]int{}
	for range 12 {
		var kind string
		var slot, incarnation, pid int
		line := bell.next()
		if _, err := fmt.Sscanf(line, "%1s-%d-%d-%d", &kind, &slot, &incarnation, &pid); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		members[fmt.Sprintf("%s%d.%d", kind, slot, incarnation)] = pid
		if incarnation == 2 && hasMark(members[fmt.Sprintf("%s%d.1", kind, slot)], d.mark) {
			t.Errorf("%s:%d has been started while a member of its former group lives", kind, slot)
		}
	}
	d.running("mild", 3)
	s := d.running("deaf", 3)
	for name, least := range map[string]time.Duration{"mild": 0, "deaf": 700 * time.Millisecond} {
		for _, p := range s.entry(name).Processes {
			x := p.LastExit
			if x == nil || x.Code == nil || *x.Code != 7 || x.Initiator != "process" {
				t.Fatalf("%s:%d: last exit %+v", name, p.Slot, x)
			}
			if waited := p.StartedAt.Sub(x.At); waited < least {
				t.Errorf("%s:%d was started %v after the exit, before what was left could be gone", name, p.Slot, waited)
			}
		}
	}
	// Now the groups: the shell waits for its member, and both have to go.
	d.stop()
}
