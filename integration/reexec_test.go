package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReexecUnderLoad re-execs the daemon 100 times while processes end and
// are started again. Those write down what they did: each beginning, each end
// and its code, and whether another one was in the slot at the same time. The
// daemon's counters have to say the same.
func TestReexecUnderLoad(t *testing.T) {
	times := often(5, 100, 1000)
	const slots, steady = 8, 20
	bell := newBell(t)
	dir := t.TempDir()
	park := filepath.Join(dir, "park") // while it is there, whoever starts stays
	touch := func() {
		t.Helper()
		if err := os.WriteFile(park, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	touch()
	program := script(t, fmt.Sprintf(`
say() { echo "slot=$SENTRYD_SLOT incarnation=$SENTRYD_INCARNATION pid=$$ $*" > %[1]s; }
if [ -e %[3]s ]; then say what=parked; exec sleep 100000; fi
mkdir %[2]s/slot.$SENTRYD_SLOT || say what=doubled
say what=begins
code=$(( ($SENTRYD_INCARNATION * 3 + $SENTRYD_SLOT) %% 7 ))
sleep 0.0$code
rmdir %[2]s/slot.$SENTRYD_SLOT
say what=ends code=$code
exit $code
`, bell.path, dir, park))
	d := startDaemon(t, fmt.Sprintf(`
entries:
  churn: {command: %s, count: %d, delay: 5}
  steady: {command: sleep 100000, count: %d}
`, program, slots, steady), options{})
	before := d.identities(d.running("steady", steady).entry("steady"))
	d.running("churn", slots)
	// Descriptors that whoever ran the tests left open in the daemon last until
	// the second re-exec.
	d.reexec()
	first := d.reexec()
	for range slots {
		bell.next()
	}
	resources := d.resources()
	if err := os.Remove(park); err != nil {
		t.Fatal(err)
	}
	for _, pid := range first.entry("churn").pids() {
		d.kill(pid, unix.SIGKILL)
	}

	for n := range times - 2 {
		if n%2 == 0 {
			d.reexec()
		} else {
			d.must("reload")
		}
		if got := threads(t, d.pid); got >= 50 {
			t.Errorf("re-exec %d: %d threads", n, got)
		}
	}
	touch()
	type life struct{ begins, ends int }
	lives := make([]map[int]life, slots)
	for i := range lives {
		lives[i] = map[int]life{}
	}
	codes := map[string]float64{}
	total := 0
	for parked := 0; parked < slots; {
		line := bell.next()
		f := fields(line)
		slot, err1 := strconv.Atoi(f["slot"])
		incarnation, err2 := strconv.Atoi(f["incarnation"])
		if err1 != nil || err2 != nil || slot >= slots {
			t.Fatalf("a child wrote %q", line)
		}
		l := lives[slot][incarnation]
		switch f["what"] {
		case "begins":
			l.begins++
			total++
		case "ends":
			l.ends++
			codes[f["code"]]++
		case "parked":
			parked++
			if len(lives[slot]) != incarnation-2 { // the first one was parked too
				t.Errorf("slot %d is in incarnation %d after %d of them", slot, incarnation, len(lives[slot]))
			}
			continue
		default:
			t.Errorf("slot %d: %s", slot, line)
			continue
		}
		lives[slot][incarnation] = l
	}
	for slot, m := range lives {
		for incarnation, l := range m {
			if l != (life{1, 1}) {
				t.Errorf("slot %d, incarnation %d: began %d times and ended %d times", slot, incarnation, l.begins, l.ends)
			}
		}
	}

	s := d.running("churn", slots)
	if s.Daemon.PID != d.pid || s.Daemon.Reexecs != uint64(times) {
		t.Errorf("pid %d, was %d; %d re-execs, want %d", s.Daemon.PID, d.pid, s.Daemon.Reexecs, times)
	}
	if e := s.entry("churn"); e.Exits != uint64(slots+total) || e.Starts != uint64(slots+total+slots) {
		t.Errorf("%d starts and %d exits, want %d and %d", e.Starts, e.Exits, slots+total+slots, slots+total)
	}
	m := d.metrics()
	for code, n := range codes {
		name := fmt.Sprintf(`sentryd_process_exits_total{code="%s",entry="churn",reason="exited"}`, code)
		if m[name] != n {
			t.Errorf("exits with code %s: counted %v, were %v", code, m[name], n)
		}
	}
	if n := m[`sentryd_reexecs_total{result="ok"}`]; n != float64(times) {
		t.Errorf("sentryd_reexecs_total: %v", n)
	}
	d.same(before, s.entry("steady"))
	if e := s.entry("steady"); e.Starts != steady || e.Exits != 0 {
		t.Errorf("steady: %d starts, %d exits", e.Starts, e.Exits)
	}
	d.sameResources(resources)
	if total < min(10, times/2)*slots {
		t.Errorf("only %d processes ended: no load", total)
	}
	t.Logf("%d re-execs over %d exits", times, total)
	d.stop()
}
