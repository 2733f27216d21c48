package logs

import (
	"context"
	"hash/fnv"
	"io"
	"log/slog"
	"strconv"
	"time"
)

// labelWidth is the width of the field for ENTRY.PID behind the time, so that
// text starts at column 25, counted from 0.
const labelWidth = 16

// formatter turns lines and records into bytes. It belongs to the reader
// goroutine; it is not safe for concurrent use.
type formatter struct {
	format Format
	color  bool
	slog   slog.Handler // writes to buf; nil in Seed
	buf    *[]byte      // where the slog handler's records go

	sec   int64  // the second that clock shows
	clock []byte // "20:17:55 "
}

func newFormatter(format Format, color bool) *formatter {
	f := &formatter{format: format, color: color, sec: -1}
	if format != Seed {
		f.slog = newHandler(format, f, &slog.HandlerOptions{Level: slog.LevelDebug})
	}
	return f
}

// newHandler returns the slog handler of a format other than Seed.
func newHandler(format Format, w io.Writer, opts *slog.HandlerOptions) slog.Handler {
	if format == JSON {
		return slog.NewJSONHandler(w, opts)
	}
	return slog.NewTextHandler(w, opts)
}

// withUnit has a duration written as in a configuration, in every format: the JSON of
// package slog has nanoseconds, and nothing says so. It is a ReplaceAttr, which the lines
// of children go without: they have no duration, and it would cost them half of their speed.
func withUnit(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.String(a.Key, a.Value.Duration().String())
	}
	return a
}

// Write takes what the slog handler made.
func (f *formatter) Write(p []byte) (int, error) {
	*f.buf = append(*f.buf, p...)
	return len(p), nil
}

// label is the prepared prefix of the lines of one incarnation.
type label struct {
	pid         int
	incarnation uint64
	prefix      []byte       // Seed: padded, coloured
	handler     slog.Handler // otherwise
}

// is reports whether l is the label of that incarnation.
func (l *label) is(pid int, incarnation uint64) bool {
	return l.pid == pid && l.incarnation == incarnation
}

// label prepares the prefix for lines of a child.
func (f *formatter) label(k Key, pid int, incarnation uint64) label {
	l := label{pid: pid, incarnation: incarnation}
	if f.format == Seed {
		l.prefix = f.appendLabel(nil, k.Entry, pid)
		return l
	}
	attrs := append(identity(k, pid, incarnation), slog.String("stream", k.Stream.String()))
	l.handler = f.slog.WithAttrs(attrs)
	return l
}

// identity returns the attributes that say whom a record is about.
func identity(k Key, pid int, incarnation uint64) []slog.Attr {
	attrs := []slog.Attr{slog.String("entry", k.Entry), slog.Int("slot", k.Slot)}
	if pid != 0 {
		attrs = append(attrs, slog.Int("pid", pid))
	}
	if incarnation != 0 {
		attrs = append(attrs, slog.Uint64("incarnation", incarnation))
	}
	return attrs
}

// appendLabel appends ENTRY.PID, padded; one blank at least follows it.
func (f *formatter) appendLabel(dst []byte, entry string, pid int) []byte {
	if f.color {
		dst = append(dst, "\x1b["...)
		dst = append(dst, colour(entry)...)
		dst = append(dst, 'm')
	}
	start := len(dst)
	dst = append(dst, entry...)
	if pid != 0 {
		dst = append(dst, '.')
		dst = strconv.AppendInt(dst, int64(pid), 10)
	}
	width := len(dst) - start
	if f.color {
		dst = append(dst, "\x1b[0m"...)
	}
	dst = append(dst, ' ')
	for width++; width < labelWidth; width++ {
		dst = append(dst, ' ')
	}
	return dst
}

// colour returns the SGR parameter for an entry, the same in every run. Red is
// left to people's own errors.
func colour(entry string) string {
	palette := [...]string{"32", "33", "34", "35", "36", "92", "93", "94", "95", "96"}
	h := fnv.New32a()
	h.Write([]byte(entry))
	return palette[h.Sum32()%uint32(len(palette))]
}

// line appends one line of a child to dst. It allocates nothing in Seed.
func (f *formatter) line(dst []byte, l *label, now time.Time, text []byte) []byte {
	if f.format == Seed {
		dst = f.appendClock(dst, now)
		dst = append(dst, l.prefix...)
		dst = appendSafe(dst, text)
		return append(dst, '\n')
	}
	return f.record(dst, l.handler, now, slog.LevelInfo, string(appendSafe(nil, text)), nil)
}

// own appends a line of the daemon's own to dst.
func (f *formatter) own(dst []byte, r *Record) []byte {
	if f.format == Seed {
		if r.Key.Entry != "" {
			dst = f.appendClock(dst, r.Time)
			dst = f.appendLabel(dst, r.Key.Entry, r.PID)
		}
		dst = appendSafe(dst, []byte(r.Text))
		return append(dst, '\n')
	}
	var attrs []slog.Attr
	if r.Key.Entry != "" {
		attrs = identity(r.Key, r.PID, r.Incarnation)
	}
	for _, a := range r.Attrs {
		attrs = append(attrs, withUnit(nil, a))
	}
	msg := r.Msg
	if msg == "" {
		msg = r.Text
	}
	return f.record(dst, f.slog, r.Time, r.Level, msg, attrs)
}

// record appends a slog record to dst.
func (f *formatter) record(dst []byte, h slog.Handler, t time.Time, level slog.Level, msg string, attrs []slog.Attr) []byte {
	rec := slog.NewRecord(t, level, msg, 0)
	rec.AddAttrs(attrs...)
	f.buf = &dst
	_ = h.Handle(context.Background(), rec) // Write cannot fail
	f.buf = nil
	return dst
}

// appendClock appends the local time of day and a blank. It is worked out once
// a second, not once a line.
func (f *formatter) appendClock(dst []byte, t time.Time) []byte {
	if sec := t.Unix(); sec != f.sec {
		f.sec = sec
		f.clock = t.Local().AppendFormat(f.clock[:0], "15:04:05 ")
	}
	return append(dst, f.clock...)
}
