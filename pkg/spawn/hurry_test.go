package spawn

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// policyOf is the scheduling of the calling thread.
func policyOf(t *testing.T) unix.SchedAttr {
	t.Helper()
	a, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return *a
}

// TestHurry: the thread is real-time for the time asked for, if it may be, and then
// what it was: its nice value included.
func TestHurry(t *testing.T) {
	for _, before := range []unix.SchedAttr{
		{Policy: unix.SCHED_NORMAL},
		{Policy: unix.SCHED_NORMAL, Nice: 5},
		{Policy: unix.SCHED_BATCH, Nice: 7},
	} {
		done := make(chan struct{})
		go func() { // whose thread ends with it: a plain user cannot take back a nice value
			defer close(done)
			runtime.LockOSThread()
			if err := setPolicy(before); err != nil {
				t.Error(err)
				return
			}
			err := setPolicy(unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 1})
			allowed := err == nil
			if !allowed && !errors.Is(err, unix.EPERM) {
				t.Error(err)
			}
			if err := setPolicy(before); err != nil {
				t.Error(err)
				return
			}
			release := hurry()
			during := policyOf(t)
			release()
			after := policyOf(t)
			want := before.Policy
			if allowed && before.Policy == unix.SCHED_NORMAL {
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
