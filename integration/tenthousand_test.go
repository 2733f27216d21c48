package integration

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/sentryd/sentryd/internal/testenv"
)

// TestTenThousand scales an entry to 10,000 processes: the daemon stays below 50
// threads and four descriptors a child, and stops all of them.
func TestTenThousand(t *testing.T) {
	const n = 10000
	testenv.Need(t, testenv.Root(), testenv.Long(), testenv.Descriptors(2.5*n))
	d := startDaemon(t, fmt.Sprintf("entries:\n  a: {command: %s, count: 0}\n", waiter(t)), options{})
	before := len(openFiles(t, d.pid))
	begin := time.Now()
	if status, answer := d.post("/v1/entries/a/scale?wait="+patience.String(), fmt.Sprintf(`{"count": %d}`, n)); status != 200 {
		t.Fatalf("scale: %d %.1000s", status, answer)
	}
	started := time.Since(begin)
	s := d.state()
	checkCounters(t, s)
	if e := s.entry("a"); e.Running != n || e.Starts != n || e.Exits != 0 {
		t.Errorf("%d running, %d starts, %d exits", e.Running, e.Starts, e.Exits)
	}
	if got := threads(t, d.pid); got >= 50 {
		t.Errorf("%d threads", got)
	}
	files := len(openFiles(t, d.pid)) - before
	if files >= 4*n {
		t.Errorf("%d descriptors for %d children", files, n)
	}
	began := time.Now()
	d.stop()
	t.Logf("started in %v, stopped in %v; %d descriptors more than without children", started, time.Since(began), files)
}

func openFiles(t *testing.T, pid int) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return list
}
