package spawn

import "testing"

// BenchmarkStorm starts children that exit at once, with two in flight.
func BenchmarkStorm(b *testing.B) {
	for _, mode := range []struct {
		name string
		fork bool
	}{{"clone3", false}, {"forkExec", true}} {
		b.Run(mode.name, func(b *testing.B) {
			p := newTestPool(b, Options{}, func(p *Pool) { p.fork = p.fork || mode.fork })
			spec := static(b, exitWith(0))
			b.ReportAllocs()
			b.ResetTimer()
			storm(b, p, spec, b.N, 8)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "starts/s")
		})
	}
}

// storm starts n children, keeping up to width of them started and not ended.
func storm(tb testing.TB, p *Pool, spec *Spec, n, width int) {
	var buf []Event
	next, live := 0, 0
	for next < n || live > 0 {
		for next < n && live < width {
			next++
			live++
			p.Start(Token(next), spec)
		}
		buf = p.Events(buf[:0])
		if len(buf) == 0 {
			<-p.Ready()
		}
		for _, e := range buf {
			switch e.Kind {
			case StartFailed:
				tb.Fatal(e.Err)
			case Exited:
				live--
			}
		}
	}
}
