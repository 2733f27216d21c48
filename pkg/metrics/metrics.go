// Package metrics shows the published picture of sentryd to Prometheus.
//
// It knows [view.State] and the names, types and labels of the metrics, which
// are a contract: all of them stand in testdata/metrics.golden. It must not
// know the supervisor: a scrape loads a picture and never takes a lock that
// supervision waits for. Nothing here is registered globally.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sentryd/sentryd/pkg/view"
)

// Processes reads what processes use now.
type Processes interface {
	// Each calls f for those of the pids that there are: start tells apart
	// processes that had the same pid, user and system are processor time in
	// seconds with that of waited-for children, rss is in bytes, and fds is -1
	// when it cannot be known.
	Each(pids []int, f func(pid int, start uint64, user, system float64, rss int64, fds int))
}

// maxScrapes is how many scrapes are answered at a time; more get 503. Each
// holds the whole answer in memory.
const maxScrapes = 8

// New returns a handler that answers with the metrics of the state that load
// returns, of the processes in it, and of this process itself (go_* and
// process_*). It may be called concurrently; load must be safe for that.
//
// The answer is not compressed: scrapers are near, and a compressor's tables
// would stay in memory for good.
func New(load func() *view.State, processes Processes) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		NewCollector(load, processes),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		// One bad metric does not hide the others; it is counted in
		// promhttp_metric_handler_errors_total.
		ErrorHandling:       promhttp.ContinueOnError,
		Registry:            reg,
		MaxRequestsInFlight: maxScrapes,
		DisableCompression:  true,
	})
}
