package supervisor

import (
	"testing"

	"github.com/sentryd/sentryd/pkg/state"
)

// TestWhoStopsInAnOlderJournal counts as told: it does not say so of those who were.
func TestWhoStopsInAnOlderJournal(t *testing.T) {
	for format, want := range map[uint32]bool{1: true, 2: true, 3: false} {
		deadline := int64(1)
		stopping := state.Slot{Incarnation: 1, State: "stopping", Live: true, Tree: true, PID: 1 << 30, StopBy: "command", Deadline: &deadline}
		running := state.Slot{Slot: 1, Incarnation: 1, State: "running", Live: true, Tree: true, PID: 1 << 30}
		r := Find(Search{Name: "none", Output: t.TempDir()}, &state.Recovered{
			Head: state.JournalHead{Format: format},
			Daemon: &state.Daemon{Args: []string{"none of that name"}, Machine: state.Machine{Entries: []state.Entry{
				{Name: "a", Count: 2, CountBy: "reload", Roll: state.Roll{By: "process"}, Slots: []state.Slot{stopping, running}},
			}}},
		}, nil)
		if r.Problem != nil {
			t.Fatal(r.Problem)
		}
		slots := r.saved.Machine.Entries[0].Slots
		if slots[0].Told != want || slots[1].Told {
			t.Errorf("format %d: told %v and %v", format, slots[0].Told, slots[1].Told)
		}
		r.Close()
	}
}
