package spawn

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHurry: the thread is real-time for the time asked for, if it may be, and then
// what it was, its nice value included.
func TestHurry(t *testing.T) {
	here, errno := policy()
	if errno != 0 {
		t.Fatal(errno)
	}
	for _, before := range []unix.SchedAttr{
		{Policy: unix.SCHED_NORMAL, Nice: here.Nice},
		{Policy: unix.SCHED_NORMAL, Nice: min(19, here.Nice+5)},
		{Policy: unix.SCHED_BATCH, Nice: min(19, here.Nice+7)},
	} {
		done := make(chan struct{})
		go func() { // whose thread ends with it: a plain user cannot take back a nice value
			defer close(done)
			runtime.LockOSThread()
			allowed := setPolicy(unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 1})
			if allowed != 0 && allowed != unix.EPERM {
				t.Error(allowed)
			}
			if errno := setPolicy(before); errno != 0 {
				t.Error(errno)
				return
			}
			release := hurry()
			during, _ := policy()
			release()
			after, _ := policy()
			want := before.Policy
			if allowed == 0 && before.Policy == unix.SCHED_NORMAL {
				want = unix.SCHED_FIFO
			}
			if during.Policy != want || during.Flags != 0 {
				t.Errorf("from %+v: %+v meanwhile, want policy %d", before, during, want)
			}
			if after.Policy != before.Policy || after.Nice != before.Nice || after.Priority != 0 {
				t.Errorf("from %+v: %+v afterwards", before, after)
			}
		}()
		<-done
	}
}
