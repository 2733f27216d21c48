package fsm

import (
	"slices"
	"strconv"
	"testing"
	"time"
)

// crowd is a machine with n running slots, in entries of up to 10,000.
type crowd struct {
	m     *Machine
	ids   []ID // the slots, with the incarnation that lives
	now   Instant
	turn  uint64
	spawn []ID // asked for by the last step
}

func newCrowd(tb testing.TB, n int) *crowd {
	tb.Helper()
	c := &crowd{m: New()}
	var conf Configure
	for left, i := n, 0; left > 0; i++ {
		count := min(left, MaxCount-1) // one below, so that it can be scaled up
		left -= count
		e := pairEntry
		e.Name, e.Count = "entry"+strconv.Itoa(i), count
		conf.Entries = append(conf.Entries, e)
	}
	c.step(conf)
	c.ids = slices.Clone(c.spawn)
	for _, id := range c.ids {
		c.step(Spawned{ID: id, PID: 1, At: c.now})
	}
	c.m.TakeChanges()
	if len(c.ids) != n {
		tb.Fatalf("%d slots of %d", len(c.ids), n)
	}
	return c
}

func (c *crowd) step(ev Event) {
	c.spawn = c.spawn[:0]
	for _, a := range c.m.Step(c.now, ev) {
		if s, ok := a.(Spawn); ok {
			c.spawn = append(c.spawn, s.ID)
		}
	}
}

// next is the slot whose turn it is: all of them, in an order that jumps about.
func (c *crowd) next() int {
	c.turn += 0x9e3779b97f4a7c15
	return int(c.turn % uint64(len(c.ids)))
}

func (c *crowd) exit(i int) {
	c.step(Exited{ID: c.ids[i], At: c.now, Status: Status{Reason: ReasonExited, Code: 1}, TreeEmpty: true})
}

// exitToRestart is one exit, its delay and the start that follows.
func (c *crowd) exitToRestart() {
	i := c.next()
	c.exit(i)
	c.now, _ = c.m.NextDeadline()
	c.step(Tick{})
	c.ids[i] = c.spawn[0]
	c.step(Spawned{ID: c.ids[i], PID: 1, At: c.now})
}

// scaleByOne is one slot more, and one less again.
func (c *crowd) scaleByOne() {
	name := c.ids[c.next()].Entry
	n := c.m.entries[name].count
	c.step(Scale{Entry: name, Count: n + 1})
	id := c.spawn[0]
	c.step(Spawned{ID: id, PID: 1, At: c.now})
	c.step(Scale{Entry: name, Count: n})
	c.step(Exited{ID: id, At: c.now, Status: Status{Reason: ReasonSignaled, Signal: 15}, TreeEmpty: true})
}

// The cost of a step does not depend on the number of slots: ns/op stays
// within what a heap's logarithm and colder caches explain.
func BenchmarkStep(b *testing.B) {
	for _, n := range []int{10, 1000, 100000} {
		slots := "slots=" + strconv.Itoa(n)
		b.Run("exit-restart/"+slots, func(b *testing.B) {
			c := newCrowd(b, n)
			b.ReportAllocs()
			for b.Loop() {
				c.exitToRestart()
			}
		})
		b.Run("exit-restart-of-all/"+slots, func(b *testing.B) {
			c := newCrowd(b, n)
			for i := range c.ids { // every slot waits for a start of its own
				c.now += time.Microsecond
				c.exit(i)
			}
			b.ReportAllocs()
			for b.Loop() {
				c.now, _ = c.m.NextDeadline()
				c.step(Tick{})
				id := c.spawn[0]
				c.step(Spawned{ID: id, PID: 1, At: c.now})
				c.step(Exited{ID: id, At: c.now, Status: Status{Reason: ReasonExited, Code: 1}, TreeEmpty: true})
			}
		})
		b.Run("scale-by-one/"+slots, func(b *testing.B) {
			c := newCrowd(b, n)
			b.ReportAllocs()
			for b.Loop() {
				c.scaleByOne()
			}
		})
		b.Run("take-changes/"+slots, func(b *testing.B) {
			c := newCrowd(b, n)
			b.ReportAllocs()
			for b.Loop() {
				c.exitToRestart()
				if got := c.m.TakeChanges(); len(got.Entries) != 1 || len(got.Entries[0].Slots) != 1 {
					b.Fatalf("%d entries changed", len(got.Entries))
				}
			}
		})
	}
}

// TestStepCostIsFlat holds what the benchmark shows, with room for a busy
// machine: were the cost to grow with the slots, it would be 10,000-fold, every time.
func TestStepCostIsFlat(t *testing.T) {
	const rounds, room, tries = 2000, 50, 20
	for name, op := range map[string]func(*crowd){
		"exit to restart": (*crowd).exitToRestart,
		"scale by one":    (*crowd).scaleByOne,
		"take changes":    func(c *crowd) { c.exitToRestart(); c.m.TakeChanges() },
	} {
		small, large := newCrowd(t, 10), newCrowd(t, 100000)
		for i := 1; ; i++ {
			few, many := cost(small, rounds, op), cost(large, rounds, op)
			if many <= room*few {
				break
			}
			if i == tries {
				t.Errorf("%s: %v with 10 slots, %v with 100,000", name, few/rounds, many/rounds)
				break
			}
		}
	}
}

func cost(c *crowd, rounds int, op func(*crowd)) time.Duration {
	begin := time.Now()
	for range rounds {
		op(c)
	}
	return time.Since(begin)
}
