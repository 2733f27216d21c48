package metrics

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sentryd/sentryd/pkg/view"
)

// sink is where a collection goes. What cannot be sent, such as a label that
// is not UTF-8, becomes a metric that reports its error.
type sink struct {
	ch chan<- prometheus.Metric
}

func (s sink) send(m metric, metric prometheus.Metric, err error) {
	if err != nil {
		metric = prometheus.NewInvalidMetric(m.desc, err)
	}
	s.ch <- metric
}

func (s sink) value(m metric, v float64, labels ...string) {
	c, err := prometheus.NewConstMetric(m.desc, m.typ, v, labels...)
	s.send(m, c, err)
}

// counts sends one value for each of list, whose label comes last.
func (s sink) counts(m metric, list []view.LabelCount, labels ...string) {
	for _, lc := range list {
		s.value(m, float64(lc.N), append(slices.Clip(labels), lc.Label)...)
	}
}

// histogram sends h with cumulative buckets, as Prometheus has them.
func (s sink) histogram(m metric, h view.Histogram, labels ...string) {
	buckets := make(map[float64]uint64, len(h.Bounds))
	var n uint64
	for i, count := range h.Counts {
		n += count
		if i < len(h.Bounds) { // the last count is of +Inf, which goes without saying
			buckets[h.Bounds[i]] = n
		}
	}
	c, err := prometheus.NewConstHistogram(m.desc, n, h.Sum, buckets, labels...)
	s.send(m, c, err)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds returns t in seconds since the epoch; a float64 keeps it to a
// microsecond.
func seconds(t time.Time) float64 {
	return float64(t.UnixMicro()) / 1e6
}
