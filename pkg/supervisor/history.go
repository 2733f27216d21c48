package supervisor

import (
	"context"
	"sync"

	"github.com/sentryd/sentryd/pkg/view"
)

// kept is how many events are kept for those who ask later or fell behind.
const kept = 4096

// history is the last events, for any number of readers, each of which may fall
// behind without holding up anybody. The owner goroutine adds to it.
type history struct {
	mu   sync.Mutex
	ring []view.Event  // at most kept; the oldest stands at first
	at   int           // where the next one goes once the ring is full
	seq  uint64        // of the last event
	more chan struct{} // closed when there is another; nil while nobody waits
}

// add numbers an event and keeps it.
func (h *history) add(e view.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seq++
	e.Seq = h.seq
	if len(h.ring) < kept {
		h.ring = append(h.ring, e)
	} else {
		h.ring[h.at] = e
		h.at = (h.at + 1) % kept
	}
	if h.more != nil {
		close(h.more)
		h.more = nil
	}
}

// after returns at most limit events, in order, whose number is above seq, and
// before them how many are not kept any more. If there are none it returns a
// channel that is closed once there are. A seq that is not reached yet is of
// another daemon: then everything is new.
func (h *history) after(seq uint64, limit int) (events []view.Event, missed uint64, more <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if seq > h.seq {
		seq = 0
	}
	if oldest := h.seq - uint64(len(h.ring)); seq < oldest {
		missed, seq = oldest-seq, oldest
	}
	n := int(h.seq - seq) // all of them in the ring
	for i := range min(n, limit) {
		events = append(events, h.ring[(h.at+len(h.ring)-n+i)%len(h.ring)])
	}
	if len(events) > 0 || missed > 0 {
		return events, missed, nil
	}
	if h.more == nil {
		h.more = make(chan struct{})
	}
	return nil, 0, h.more
}

// last returns the number of the last event, and at most n of the last ones.
func (h *history) last(n int) (seq uint64, events []view.Event) {
	h.mu.Lock()
	seq = h.seq
	h.mu.Unlock()
	events, _, _ = h.after(seq-min(seq, uint64(n)), n)
	return seq, events
}

// restore begins where a former image stopped.
func (h *history) restore(seq uint64, events []view.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := uint64(len(events)); n > 0 && n <= seq && events[0].Seq == seq-n+1 && events[n-1].Seq == seq {
		h.ring = append(h.ring, events...)
	}
	h.seq = seq
}

// eventBatch is how many events a reader is given at a time.
const eventBatch = 256

// Events returns the next events after the one numbered seq, and before them how
// many there were that are not kept any more. It waits for one until ctx ends.
// It never waits for the owner, nor the owner for it.
func (s *Supervisor) Events(ctx context.Context, seq uint64) (events []view.Event, missed uint64) {
	for {
		events, missed, more := s.history.after(seq, eventBatch)
		if more == nil {
			return events, missed
		}
		select {
		case <-more:
		case <-s.ended:
			events, missed, _ = s.history.after(seq, eventBatch)
			return events, missed
		case <-ctx.Done():
			return nil, 0
		}
	}
}

// LastEvent returns the number of the last event.
func (s *Supervisor) LastEvent() uint64 {
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	return s.history.seq
}
