package metrics

import "github.com/prometheus/client_golang/prometheus"

// metric is a name with its type, help and labels.
type metric struct {
	desc *prometheus.Desc
	typ  prometheus.ValueType // of no meaning for a histogram
}

// metrics are all that the collector sends, apart from what package
// collectors adds. Names carry the prefix sentryd_.
type metrics struct {
	buildInfo, reloadOK, reloadTime, reexecs, listenerUp                      metric
	adopted, ignored, outputDropped, failures, queueLength                    metric
	connectorUp, procEvents, procEventsLost, procResyncs, exitDetection       metric
	desired, processes, up, startTime, starts, exits, startFailures, oomKills metric
	uptime, restartLatency, cpu, resident, openFDs, logBytes, logLines, ready metric
	descendants, forks, execs, descendantExits, coredumps                     metric
}

func newMetrics() (m metrics, all []*prometheus.Desc) {
	def := func(typ prometheus.ValueType, name, help string, labels ...string) metric {
		d := prometheus.NewDesc("sentryd_"+name, help, labels, nil)
		all = append(all, d)
		return metric{d, typ}
	}
	const (
		counter   = prometheus.CounterValue
		gauge     = prometheus.GaugeValue
		histogram = prometheus.UntypedValue
	)
	m = metrics{
		buildInfo: def(gauge, "build_info", "Always 1; the labels say which program this is.", "version", "goversion"),
		reloadOK: def(gauge, "config_last_reload_successful",
			"Whether the last attempt to load a configuration succeeded."),
		reloadTime: def(gauge, "config_last_reload_success_timestamp_seconds",
			"When a configuration was last loaded with success, in seconds since the epoch."),
		reexecs:    def(counter, "reexecs_total", "Attempts to replace the running program, by result.", "result"),
		listenerUp: def(gauge, "http_listener_up", "Whether an address that is meant to be listened on is.", "address"),
		adopted:    def(counter, "adopted_processes_total", "Processes taken over from a daemon that died."),
		ignored: def(counter, "ignored_events_total",
			"Events about an incarnation that was no more; they change nothing."),
		outputDropped: def(counter, "output_dropped_lines_total",
			"Lines of sentryd's own output that were dropped because nobody read them."),
		failures: def(counter, "operation_failures_total",
			"System calls of the supervisor that failed and were survived, by operation.", "operation"),
		queueLength: def(gauge, "event_queue_length", "Events that the supervisor took in its last batch."),

		connectorUp: def(gauge, "proc_connector_up", "Whether the kernel's process events are heard."),
		procEvents:  def(counter, "proc_events_total", "Process events from the kernel, by kind.", "event"),
		procEventsLost: def(counter, "proc_events_lost_total",
			"Process events that the kernel dropped because they were not read in time, or did not send."),
		procResyncs: def(counter, "proc_resyncs_total", "Times that everything was looked at again after a loss of process events, or a time without them."),
		exitDetection: def(histogram, "exit_detection_seconds",
			"Time from the end of a process, by the kernel's clock, to its handling."),

		desired:   def(gauge, "entry_desired_processes", "Processes that ought to run now.", "entry"),
		processes: def(gauge, "entry_processes", "Slots of the entry by state.", "entry", "state"),
		ready:     def(gauge, "entry_ready_processes", "Processes that run and are ready.", "entry"),
		up:        def(gauge, "process_up", "Whether the slot has a live process.", "entry", "slot"),
		startTime: def(gauge, "process_start_time_seconds",
			"When the slot's live process was started, in seconds since the epoch.", "entry", "slot"),
		starts: def(counter, "process_starts_total", "Processes started.", "entry"),
		exits: def(counter, "process_exits_total",
			"Processes ended, by reason and by exit code or name of the signal.", "entry", "reason", "code"),
		oomKills: def(counter, "entry_oom_kills_total",
			"Processes that the kernel killed for lack of memory under the limits of the entry.", "entry"),
		startFailures:  def(counter, "process_start_failures_total", "Starts that failed, by error.", "entry", "error"),
		uptime:         def(histogram, "process_uptime_seconds", "How long ended processes had run.", "entry"),
		restartLatency: def(histogram, "restart_latency_seconds", "Time from an exit to the next start, less the configured delay.", "entry"),
		cpu: def(counter, "process_cpu_seconds_total",
			"Processor time of live and ended processes, with that of their waited-for children.", "entry", "mode"),
		resident:    def(gauge, "process_resident_memory_bytes", "Resident memory of the live processes.", "entry"),
		openFDs:     def(gauge, "process_open_fds", "Open descriptors of the live processes, as far as they may be known.", "entry"),
		descendants: def(gauge, "entry_descendants", "Living descendants of the main processes.", "entry"),
		forks:       def(counter, "entry_forks_total", "Descendants of the main processes that were forked, as far as it was heard.", "entry"),
		execs:       def(counter, "entry_execs_total", "Programs executed by the main processes and their descendants, as far as it was heard.", "entry"),
		descendantExits: def(counter, "entry_descendant_exits_total",
			"Descendants of the main processes that ended, by reason, as far as it was heard.", "entry", "reason"),
		coredumps: def(counter, "entry_coredumps_total", "Core dumps of the main processes and their descendants, as far as it was heard.", "entry"),
		logBytes:  def(counter, "log_bytes_total", "Output of the processes that was taken in, in bytes.", "entry"),
		logLines:  def(counter, "log_lines_total", "Output of the processes that was taken in, in lines.", "entry"),
	}
	return m, all
}
