package logs

import "sync"

// maxDiagnostics bounds the diagnostics that wait to be written, in bytes.
const maxDiagnostics = 1 << 20

// diagnostics takes the records of Output.Logger, already formatted, without
// waiting.
type diagnostics struct {
	output *Output
	aside  bool // they go to Options.Err, not into the stream

	mu  sync.Mutex
	buf []byte
}

// Write takes one record. It never fails: what does not fit is counted.
func (d *diagnostics) Write(p []byte) (int, error) {
	if !d.aside {
		d.output.queue.put(command{verb: verbRaw, rec: Record{Text: string(p)}})
		return len(p), nil
	}
	d.mu.Lock()
	first := len(d.buf) == 0
	fits := len(d.buf)+len(p) <= maxDiagnostics
	if fits {
		d.buf = append(d.buf, p...)
	}
	d.mu.Unlock()
	if !fits {
		d.output.dropped.Add(1)
	} else if first {
		d.output.queue.wake()
	}
	return len(p), nil
}

// take moves what waits here behind what waits in dst, unless that is much
// already.
func (d *diagnostics) take(dst []byte, waiting int) []byte {
	if waiting > maxDiagnostics {
		return dst
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	dst = append(dst, d.buf...)
	d.buf = d.buf[:0]
	return dst
}
