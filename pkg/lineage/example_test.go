package lineage_test

import (
	"fmt"
	"syscall"
	"time"

	"github.com/sentryd/sentryd/pkg/lineage"
	"github.com/sentryd/sentryd/pkg/procevents"
)

// A server with two workers, of which one crashes. The events would come from
// procevents.Listener.Receive.
func Example() {
	const ms = time.Millisecond
	t := lineage.New[string](0)
	t.Lost(0) // the subscription begins

	t.Add("web:0", 100, 3*ms) // a clone of ours returned pid 100 by then
	t.Apply([]procevents.Event{
		{Kind: procevents.Fork, Timestamp: 1 * ms, PID: 100, TGID: 100, ParentPID: 1, ParentTGID: 1},
		{Kind: procevents.Exec, Timestamp: 2 * ms, PID: 100, TGID: 100},
		{Kind: procevents.Fork, Timestamp: 4 * ms, PID: 101, TGID: 101, ParentPID: 100, ParentTGID: 100},
		{Kind: procevents.Fork, Timestamp: 5 * ms, PID: 102, TGID: 102, ParentPID: 100, ParentTGID: 100},
		{Kind: procevents.Fork, Timestamp: 6 * ms, PID: 103, TGID: 102, ParentPID: 1, ParentTGID: 1}, // a thread of 102
		{Kind: procevents.Exit, Timestamp: 900 * ms, PID: 101, TGID: 101, ParentPID: 100, ParentTGID: 100, ExitCode: uint32(syscall.SIGSEGV)},
	})

	news := t.Take()
	for _, c := range news.Crashes {
		fmt.Printf("%s: %d ended by signal %d after %v\n", c.Key, c.PID, c.Status.Signal(), c.At-c.Started)
	}
	if news.Listing { // after a loss, or for an adopted process
		if l, err := lineage.List[string]("/proc", nil); err == nil {
			t.Rebuild(l)
		}
	}
	for _, p := range t.Tree("web:0") {
		fmt.Printf("%*s%d with %d threads\n", 2*p.Depth, "", p.PID, p.Threads)
	}
	counts, _ := t.Counts("web:0")
	fmt.Println(counts.Forks, "forks,", counts.Descendants, "descendant")
	// Output:
	// web:0: 101 ended by signal 11 after 896ms
	// 100 with 1 threads
	//   102 with 2 threads
	// 2 forks, 1 descendant
}
