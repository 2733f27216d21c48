package state

import (
	"maps"
	"slices"
)

// appendEntry writes an entry without its slots, which have records of their own.
func appendEntry(b []byte, e *Entry) []byte {
	b = appendText(b, 1, e.Name)
	b = appendNested(b, 2, func(b []byte) []byte { return appendSpec(b, &e.Spec) })
	b = appendInt(b, 3, int64(e.Count))
	b = appendText(b, 4, e.CountBy)
	b = appendBool(b, 5, e.Held)
	b = appendBool(b, 6, e.Removed)
	for _, n := range slices.Sorted(maps.Keys(e.Retired)) {
		b = appendNested(b, 7, func(b []byte) []byte {
			r := e.Retired[n]
			b = appendInt(b, 1, int64(n))
			b = appendUint(b, 2, r.Incarnation)
			return appendBool(b, 3, r.Held)
		})
	}
	b = appendNested(b, 8, func(b []byte) []byte {
		b = appendUint(b, 1, e.Roll.Gen)
		b = appendInt(b, 2, int64(e.Roll.Next))
		b = appendInt(b, 3, int64(e.Roll.Batch))
		b = appendText(b, 4, e.Roll.By)
		return appendBool(b, 5, e.Roll.Active)
	})
	b = appendNested(b, 9, func(b []byte) []byte { return appendTotals(b, &e.Totals) })
	for i := range e.Uncounted {
		b = appendNested(b, 10, func(b []byte) []byte { return appendExit(b, &e.Uncounted[i]) })
	}
	return b
}

func (e *Entry) read(f fields) bool {
	for f.next() {
		switch f.num {
		case 1:
			f.string(&e.Name)
		case 2:
			f.bad = !e.Spec.read(f.nested())
		case 3:
			f.int(&e.Count)
		case 4:
			f.string(&e.CountBy)
		case 5:
			f.bool(&e.Held)
		case 6:
			f.bool(&e.Removed)
		case 7:
			f.bad = !e.readRetired(f.nested())
		case 8:
			f.bad = !e.Roll.read(f.nested())
		case 9:
			f.bad = !e.Totals.read(f.nested())
		case 10:
			var x Exit
			f.bad = !x.read(f.nested())
			e.Uncounted = append(e.Uncounted, x)
		}
	}
	return !f.bad && e.Name != ""
}

func (e *Entry) readRetired(f fields) bool {
	var n int
	var r Retired
	for f.next() {
		switch f.num {
		case 1:
			f.int(&n)
		case 2:
			f.uint(&r.Incarnation)
		case 3:
			f.bool(&r.Held)
		}
	}
	if e.Retired == nil {
		e.Retired = make(map[int]Retired)
	}
	e.Retired[n] = r
	return !f.bad
}

func (r *Roll) read(f fields) bool {
	for f.next() {
		switch f.num {
		case 1:
			f.uint(&r.Gen)
		case 2:
			f.int(&r.Next)
		case 3:
			f.int(&r.Batch)
		case 4:
			f.string(&r.By)
		case 5:
			f.bool(&r.Active)
		}
	}
	return !f.bad
}

func appendSpec(b []byte, s *Spec) []byte {
	b = appendInt(b, 1, int64(s.Count))
	b = appendBool(b, 2, s.Autostart)
	b = appendInt(b, 3, s.DelayNS)
	b = appendInt(b, 4, s.MinUptimeNS)
	b = appendUint(b, 5, uint64(s.Restart))
	b = appendInts(b, 6, s.SuccessExitCodes)
	b = appendInt(b, 7, int64(s.StopSignal))
	b = appendInt(b, 8, s.StopTimeoutNS)
	b = appendUint(b, 9, uint64(s.StopMode))
	b = appendBool(b, 10, s.Handover)
	b = appendInt(b, 11, int64(s.CrashFailures))
	b = appendInt(b, 12, s.CrashWithinNS)
	return appendBool(b, 13, s.CrashRestart)
}

func (s *Spec) read(f fields) bool {
	for f.next() {
		switch f.num {
		case 1:
			f.int(&s.Count)
		case 2:
			f.bool(&s.Autostart)
		case 3:
			f.int64(&s.DelayNS)
		case 4:
			f.int64(&s.MinUptimeNS)
		case 5:
			f.byte(&s.Restart)
		case 6:
			f.ints(&s.SuccessExitCodes)
		case 7:
			f.int(&s.StopSignal)
		case 8:
			f.int64(&s.StopTimeoutNS)
		case 9:
			f.byte(&s.StopMode)
		case 10:
			f.bool(&s.Handover)
		case 11:
			f.int(&s.CrashFailures)
		case 12:
			f.int64(&s.CrashWithinNS)
		case 13:
			f.bool(&s.CrashRestart)
		}
	}
	return !f.bad
}

func appendTotals(b []byte, t *Totals) []byte {
	b = appendUint(b, 1, t.Starts)
	b = appendUint(b, 2, t.Exits)
	for i := range t.ByStatus {
		b = appendNested(b, 3, func(b []byte) []byte {
			x := &t.ByStatus[i]
			b = appendText(b, 1, x.Reason)
			b = appendInt(b, 2, int64(x.Number))
			return appendUint(b, 3, x.N)
		})
	}
	b = appendTally(b, 4, t.StartFailures)
	b = appendHistogram(b, 5, &t.Uptime)
	b = appendHistogram(b, 6, &t.Latency)
	b = appendInt(b, 7, t.UserNS)
	b = appendInt(b, 8, t.SysNS)
	b = appendUint(b, 9, t.Forks)
	b = appendUint(b, 10, t.Execs)
	b = appendUint(b, 11, t.Coredumps)
	b = appendTally(b, 12, t.DescendantExits)
	return appendUint(b, 13, t.OOMKills)
}

// appendTally writes counts by word.
func appendTally(b []byte, field int, tally map[string]uint64) []byte {
	for _, word := range slices.Sorted(maps.Keys(tally)) {
		b = appendNested(b, field, func(b []byte) []byte {
			b = appendText(b, 1, word)
			return appendUint(b, 2, tally[word])
		})
	}
	return b
}

func (t *Totals) read(f fields) bool {
	for f.next() {
		switch f.num {
		case 1:
			f.uint(&t.Starts)
		case 2:
			f.uint(&t.Exits)
		case 3:
			var x StatusTotal
			f.bad = !x.read(f.nested())
			t.ByStatus = append(t.ByStatus, x)
		case 4:
			f.bad = !readTally(f.nested(), &t.StartFailures)
		case 5:
			f.bad = !t.Uptime.read(f.nested())
		case 6:
			f.bad = !t.Latency.read(f.nested())
		case 7:
			f.int64(&t.UserNS)
		case 8:
			f.int64(&t.SysNS)
		case 9:
			f.uint(&t.Forks)
		case 10:
			f.uint(&t.Execs)
		case 11:
			f.uint(&t.Coredumps)
		case 12:
			f.bad = !readTally(f.nested(), &t.DescendantExits)
		case 13:
			f.uint(&t.OOMKills)
		}
	}
	return !f.bad
}

func (x *StatusTotal) read(f fields) bool {
	for f.next() {
		switch f.num {
		case 1:
			f.string(&x.Reason)
		case 2:
			f.int(&x.Number)
		case 3:
			f.uint(&x.N)
		}
	}
	return !f.bad
}

func readTally(f fields, tally *map[string]uint64) bool {
	var word string
	var n uint64
	for f.next() {
		switch f.num {
		case 1:
			f.string(&word)
		case 2:
			f.uint(&n)
		}
	}
	if *tally == nil {
		*tally = make(map[string]uint64)
	}
	(*tally)[word] = n
	return !f.bad
}

func appendHistogram(b []byte, field int, h *Histogram) []byte {
	return appendNested(b, field, func(b []byte) []byte {
		b = appendUints(b, 1, h.Counts)
		return appendInt(b, 2, h.SumNS)
	})
}

func (h *Histogram) read(f fields) bool {
	for f.next() {
		switch f.num {
		case 1:
			f.uints(&h.Counts)
		case 2:
			f.int64(&h.SumNS)
		}
	}
	return !f.bad
}
