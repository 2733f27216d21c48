package lineage

import (
	"time"

	"github.com/sentryd/sentryd/pkg/procevents"
)

// record is what the tracker needs of an event, in 40 bytes: many are kept.
type record struct {
	at        time.Duration
	pid, tgid int32
	parent    int32 // the parent's tgid in a Fork and an Exit, zero if unknown
	code      uint32
	prev      uint64 // of a leader, and in any Fork: number of the one before it in the same bucket
	kind      procevents.Kind
	gone      bool // in a leader's Fork: its number was given on since
}

func recordOf(e *procevents.Event) record {
	return record{at: e.Timestamp, pid: e.PID, tgid: e.TGID, parent: e.ParentTGID, code: e.ExitCode, kind: e.Kind}
}

// buckets is the size of the index by pid.
const buckets = 1024

// history keeps the last events that were about no member, in the order of
// their arrival. Records are numbered from 1. Its memory is made once.
type history struct {
	ring      []record
	last      uint64          // number of the newest
	first     uint64          // number of the oldest that may be used
	tasks     [buckets]uint64 // newest Fork, or record of a leader, by pid
	replaying uint64          // number of the record that is applied once more, 0: none
	gap       time.Duration   // nothing with a timestamp after this was dropped
}

func newHistory(size int) *history { return &history{ring: make([]record, size), first: 1} }

func (h *history) at(n uint64) *record { return &h.ring[n%uint64(len(h.ring))] }

func (h *history) push(r record) {
	h.last++
	slot := h.at(h.last)
	if h.last-h.first >= uint64(len(h.ring)) {
		h.gap = max(h.gap, slot.at)
		h.first++
	}
	if r.pid == r.tgid || r.kind == procevents.Fork {
		head := &h.tasks[uint32(r.pid)%buckets]
		r.prev, *head = *head, h.last
	}
	*slot = r
}

// clear forgets everything: there is a gap until then.
func (h *history) clear(until time.Duration) {
	h.first = h.last + 1
	h.gap = max(h.gap, until)
}

// fork returns the number of the newest Fork of that process not after until,
// or 0 if none is known that had the pid then.
func (h *history) fork(pid int32, until time.Duration) uint64 {
	for n := h.tasks[uint32(pid)%buckets]; n >= h.first; n = h.at(n).prev {
		r := h.at(n)
		switch {
		case r.pid != pid || r.kind != procevents.Fork || r.at > until:
		case r.tgid != pid || r.gone:
			return 0 // the number was given to a thread, or to a member
		default:
			return n
		}
	}
	return 0
}

// given notes that a pid was given to a member, or to a thread of one.
func (h *history) given(pid int32, at time.Duration) {
	for n := h.tasks[uint32(pid)%buckets]; n >= h.first; n = h.at(n).prev {
		if r := h.at(n); r.pid == pid && r.kind == procevents.Fork && r.at < at {
			r.gone = true
			return
		}
	}
}

// ended says whether the leader of that process exited after record n.
func (h *history) ended(pid int32, n uint64) bool {
	for m := h.tasks[uint32(pid)%buckets]; m > n; m = h.at(m).prev {
		if r := h.at(m); r.pid == pid && r.kind == procevents.Exit {
			return true
		}
	}
	return false
}
