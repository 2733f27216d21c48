package fsm

import (
	"cmp"
	"reflect"
	"slices"
	"testing"
)

// replica is a machine's state as somebody has it who was told of it only by
// TakeTouched.
type replica struct {
	touched  Touched
	entries  map[string]EntrySnapshot
	stopping bool
}

func newReplica() *replica { return &replica{entries: make(map[string]EntrySnapshot)} }

func (r *replica) take(m *Machine) {
	m.TakeTouched(&r.touched)
	if r.touched.Whole {
		r.stopping = m.Stopping()
	}
	for _, name := range r.touched.Removed {
		delete(r.entries, name)
	}
	for _, es := range r.touched.Entries {
		old := r.entries[es.Name]
		if es.Retired == nil {
			es.Retired = old.Retired
		}
		if es.Retired == nil {
			es.Retired = make(map[int]Retired)
		}
		es.Slots = old.Slots
		es.Counters = es.Counters.clone()
		r.entries[es.Name] = es
	}
	for _, tally := range r.touched.Tallies {
		es := r.entries[tally.Entry]
		es.Counters = tally.Counters.clone()
		r.entries[tally.Entry] = es
	}
	for _, ts := range r.touched.Slots {
		es := r.entries[ts.Entry]
		at, found := slices.BinarySearchFunc(es.Slots, ts.Slot, func(s SlotSnapshot, n int) int { return s.Slot - n })
		switch {
		case ts.Gone:
			if found {
				es.Slots = slices.Delete(es.Slots, at, at+1)
			}
			es.Retired[ts.Slot] = ts.Left
		case found:
			es.Slots[at] = ts.SlotSnapshot
		default:
			es.Slots = slices.Insert(es.Slots, at, ts.SlotSnapshot)
			delete(es.Retired, ts.Slot)
		}
		r.entries[ts.Entry] = es
	}
	for name, es := range r.entries {
		var news []*Exit
		for i := range es.Slots {
			if x := es.Slots[i].Last; x != nil && x.Nth > es.Counters.Exits {
				news = append(news, x)
			}
		}
		slices.SortFunc(news, func(a, b *Exit) int { return cmp.Compare(a.Nth, b.Nth) })
		for _, x := range news {
			x := *x
			es.Counters.Count(&x)
		}
		r.entries[name] = es
	}
}

// equal reports whether the replica is what a snapshot says.
func (r *replica) equal(snap Snapshot) bool {
	if r.stopping != snap.Stopping || len(r.entries) != len(snap.Entries) {
		return false
	}
	for _, want := range snap.Entries {
		got := r.entries[want.Name]
		if len(got.Slots) == 0 {
			got.Slots = want.Slots[:0:0]
		}
		if !reflect.DeepEqual(got, want) {
			return false
		}
	}
	return true
}

func TestTouchedIsNothingAfterItWasTaken(t *testing.T) {
	m := New()
	m.Step(0, Configure{Entries: []Entry{{Name: "a", Count: 2, Autostart: true}}})
	var first, second Touched
	m.TakeTouched(&first)
	if len(first.Slots) != 2 || len(first.Entries) != 1 || !first.Slots[0].Pending {
		t.Errorf("after a configuration: %+v", first)
	}
	m.TakeTouched(&second)
	if !second.Empty() {
		t.Errorf("after it was taken: %+v", second)
	}
}

func TestTouchedIsOnlyWhatChanged(t *testing.T) {
	m := New()
	m.Step(0, Configure{Entries: []Entry{{Name: "a", Count: 1, Autostart: true}, {Name: "b"}}})
	var touched Touched
	m.TakeTouched(&touched)
	m.Step(0, Scale{Entry: "b", Count: 1})
	m.TakeTouched(&touched)
	if len(touched.Entries) != 1 || touched.Entries[0].Name != "b" || len(touched.Slots) != 1 || touched.Slots[0].Entry != "b" {
		t.Errorf("after a scale of b: %+v", touched)
	}
}

func TestAnEndBeforeAStartIsNoMoreThanItsSlot(t *testing.T) {
	m := New()
	m.Step(0, Configure{Entries: []Entry{{Name: "a", Count: 1, Autostart: true}}})
	id := ID{Entry: "a", Incarnation: 1}
	m.Step(1, Spawned{ID: id, PID: 10, At: 1})
	var touched Touched
	m.TakeTouched(&touched)
	m.Step(2, Exited{ID: id, At: 2, TreeEmpty: true})
	m.TakeTouched(&touched)
	if len(touched.Entries) != 0 || len(touched.Slots) != 1 || len(touched.Tallies) != 0 || touched.Slots[0].Last.Nth != 1 {
		t.Errorf("after an exit: %+v", touched)
	}
}

// TestOneTally: many exits that a start follows on are told of once when something else of their
// entry is.
func TestOneTally(t *testing.T) {
	const n = 50
	m := New()
	m.Step(0, Configure{Entries: []Entry{{Name: "a", Count: n, Autostart: true}}})
	for slot := range n {
		m.Step(1, Spawned{ID: ID{Entry: "a", Slot: slot, Incarnation: 1}, PID: 10 + slot, At: 1})
	}
	var touched Touched
	m.TakeTouched(&touched)
	for slot := range n {
		m.Step(2, Exited{ID: ID{Entry: "a", Slot: slot, Incarnation: 1}, At: 2, TreeEmpty: true})
	}
	m.Step(3, Spawned{ID: ID{Entry: "a", Incarnation: 2}, PID: 100, At: 3})
	m.TakeTouched(&touched)
	if len(touched.Tallies) != 1 || touched.Tallies[0].Exits != n || len(touched.Slots) != n {
		t.Errorf("%d tallies, %d slots", len(touched.Tallies), len(touched.Slots))
	}
}

// TestForgottenIsNotTouched: what was forgotten is not told, and what is touched then is.
func TestForgottenIsNotTouched(t *testing.T) {
	m := New()
	m.Step(0, Configure{Entries: []Entry{{Name: "a", Count: 1, Autostart: true}}})
	m.Step(1, Spawned{ID: ID{Entry: "a", Incarnation: 1}, PID: 10, At: 1})
	m.ForgetTouched()
	var touched Touched
	if m.TakeTouched(&touched); !touched.Empty() {
		t.Errorf("after it was forgotten: %+v", touched)
	}
	m.Step(2, Scale{Entry: "a", Count: 2})
	m.Step(3, Exited{ID: ID{Entry: "a", Incarnation: 1}, At: 3, TreeEmpty: true})
	m.ForgetTouched()
	m.Step(4, Spawned{ID: ID{Entry: "a", Incarnation: 2}, PID: 11, At: 4})
	m.TakeTouched(&touched)
	if len(touched.Entries) != 0 || len(touched.Tallies) != 1 || len(touched.Slots) != 1 {
		t.Errorf("after that: %+v", touched)
	}
}
