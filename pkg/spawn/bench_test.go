package spawn

import (
	"strconv"
	"testing"
)

// BenchmarkStorm starts children that exit at once, with two in flight.
func BenchmarkStorm(b *testing.B) {
	for _, mode := range []struct {
		name         string
		fork, cgroup bool
	}{{"clone3", false, false}, {"forkExec", true, false}, {"cgroup", false, true}} {
		b.Run(mode.name, func(b *testing.B) {
			p := newTestPool(b, Options{}, func(p *Pool) { p.fork = p.fork || mode.fork })
			specs := slots(static(b, exitWith(0)), 8)
			if g := (*Cgroups)(nil); mode.cgroup {
				g = testCgroups(b)
				for i, s := range specs {
					s.Place.Cgroup = g.Path("storm:" + strconv.Itoa(i))
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			storm(b, p, specs, b.N)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "starts/s")
		})
	}
}

// slots returns n copies of a Spec.
func slots(s *Spec, n int) (specs []*Spec) {
	for range n {
		c := *s
		specs = append(specs, &c)
	}
	return specs
}

// storm starts n children, keeping one of each Spec started and not ended.
func storm(tb testing.TB, p *Pool, specs []*Spec, n int) {
	var buf []Event
	slot := make(map[Token]int)
	free := make([]int, 0, len(specs))
	for i := range specs {
		free = append(free, i)
	}
	for next := 0; next < n || len(slot) > 0; {
		for next < n && len(free) > 0 {
			next++
			i := free[len(free)-1]
			free = free[:len(free)-1]
			slot[Token(next)] = i
			p.Start(Token(next), specs[i])
		}
		buf = p.Events(buf[:0])
		if len(buf) == 0 {
			p.Wait(-1)
		}
		for _, e := range buf {
			switch e.Kind {
			case StartFailed:
				tb.Fatal(e.Err)
			case Exited:
				free = append(free, slot[e.Token])
				delete(slot, e.Token)
			}
		}
	}
}
