package supervisor

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/sentryd/sentryd/pkg/view"
)

// counts are what the daemon counts beside the machine. They are read at a
// scrape, while the owner goes on.
type counts struct {
	queueLength atomic.Int64
	ignored     atomic.Uint64
	adopted     atomic.Uint64 // processes taken over from a daemon that died

	mu       sync.Mutex
	failures map[string]uint64
	reexecs  map[string]uint64
}

// Results of a re-exec.
const (
	resultOK     = "ok"
	resultFailed = "failed"
)

func (c *counts) failure(operation string) { c.add(&c.failures, operation) }
func (c *counts) reexec(result string)     { c.add(&c.reexecs, result) }

func (c *counts) add(m *map[string]uint64, key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if *m == nil {
		*m = make(map[string]uint64)
	}
	(*m)[key]++
}

// detectionBounds are the buckets of exit_detection_seconds.
var detectionBounds = []float64{
	25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 50e-3, 250e-3, 1, 10,
}

// detection is a histogram that any goroutine may write or read.
type detection struct {
	mu     sync.Mutex
	counts []uint64
	sum    float64
}

func (d *detection) observe(after time.Duration) {
	v := max(0, after.Seconds())
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.counts == nil {
		d.counts = make([]uint64, len(detectionBounds)+1)
	}
	i := 0
	for i < len(detectionBounds) && v > detectionBounds[i] {
		i++
	}
	d.counts[i]++
	d.sum += v
}

func (d *detection) view() view.Histogram {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := view.Histogram{Bounds: detectionBounds, Counts: make([]uint64, len(detectionBounds)+1), Sum: d.sum}
	copy(h.Counts, d.counts)
	return h
}

func (d *detection) restore(counts []uint64, sum float64) {
	if len(counts) != len(detectionBounds)+1 {
		return // buckets of another version: begin anew
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts, d.sum = counts, sum
}
