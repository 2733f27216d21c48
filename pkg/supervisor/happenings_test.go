package supervisor

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentryd/sentryd/pkg/view"
)

// told is what the history says, a line an event.
func told(s *Supervisor) (lines []string) {
	_, events := s.history.last(kept)
	for _, e := range events {
		line := e.Kind
		if e.Entry != "" {
			line += " " + e.Entry
		}
		if e.Slot != nil {
			line += fmt.Sprintf(":%d#%d", *e.Slot, e.Incarnation)
		}
		if e.PID != 0 {
			line += fmt.Sprintf(" pid %d", e.PID)
		}
		if e.Exit != nil {
			line += " " + e.Exit.Reason
		}
		if e.NextStartAt != nil {
			line += fmt.Sprintf(" next in %v", e.NextStartAt.Sub(e.At))
		}
		if e.Count != nil {
			line += fmt.Sprintf(" to %d", *e.Count)
		}
		if e.Initiator != "" {
			line += " by " + e.Initiator
		}
		lines = append(lines, line)
	}
	return lines
}

func TestEventsTellWhatHappened(t *testing.T) {
	inBubble(t, "entries: {a: {command: /bin/a, delay: 4s}, b: {command: /bin/b, restart: never}}", func(t *testing.T, b *bed) {
		b.end(b.byPath("/bin/a")[0], 3)
		b.end(b.byPath("/bin/b")[0], 0)
		b.pass(5 * time.Second)
		b.s.Scale(t.Context(), "a", 0)
		b.pass(time.Second)
		want := []string{
			"added a", "scaled a to 1 by reload", "added b", "scaled b to 1 by reload",
			"started a:0#1 pid 1001", "started b:0#1 pid 1002",
			"exited a:0#1 pid 1001 exited", "backoff a:0#1 next in 4s",
			"exited b:0#1 pid 1002 exited", "finished b:0#1",
			"started a:0#2 pid 1003",
			"scaled a to 0 by scale", "stopping a:0#2 by scale",
			"exited a:0#2 pid 1003 signaled", "stopped a:0#2",
		}
		if d := cmp.Diff(want, told(b.s)); d != "" {
			t.Error(d)
		}
		// Over a re-exec they go on.
		seq, events := b.s.saveEvents()
		var next history
		next.restore(seq, loadEvents(events))
		_, before := b.s.history.last(kept)
		_, after := next.last(kept)
		if d := cmp.Diff(before, after); d != "" || seq != uint64(len(want)) || next.seq != seq {
			t.Errorf("%d, %d: %s", seq, next.seq, d)
		}
		b.s.tellDaemon(view.EventReloadRefused, "because")
		if got := told(b.s); got[len(got)-1] != view.EventReloadRefused {
			t.Error(got)
		}
	})
}
