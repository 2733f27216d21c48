package supervisor

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sentryd/sentryd/pkg/view"
)

func seqs(events []view.Event) (out []uint64) {
	for _, e := range events {
		out = append(out, e.Seq)
	}
	return out
}

func TestHistoryKeepsTheLastAndSaysHowManyAreGone(t *testing.T) {
	var h history
	for i := range kept + 10 {
		h.add(view.Event{Message: fmt.Sprint(i + 1)})
	}
	for _, c := range []struct {
		after  uint64
		limit  int
		want   []uint64
		missed uint64
	}{
		{kept + 9, 5, []uint64{kept + 10}, 0},
		{kept + 6, 2, []uint64{kept + 7, kept + 8}, 0},
		{10, 2, []uint64{11, 12}, 0},
		{9, 2, []uint64{11, 12}, 1},
		{0, 1, []uint64{11}, 10},
		{kept + 11, 1, []uint64{11}, 10}, // a number of another daemon
	} {
		events, missed, more := h.after(c.after, c.limit)
		if more != nil || missed != c.missed || !cmp.Equal(seqs(events), c.want) {
			t.Errorf("after %d: %v, %d missed, more %v; want %v, %d", c.after, seqs(events), missed, more, c.want, c.missed)
		}
		for _, e := range events {
			if e.Message != fmt.Sprint(e.Seq) {
				t.Errorf("event %d is %q", e.Seq, e.Message)
			}
		}
	}
	seq, events := h.last(3)
	if seq != kept+10 || !cmp.Equal(seqs(events), []uint64{kept + 8, kept + 9, kept + 10}) {
		t.Errorf("last: %d, %v", seq, seqs(events))
	}

	var next history
	next.restore(seq, events)
	next.add(view.Event{})
	got, missed, _ := next.after(kept+5, 10)
	if missed != 2 || !cmp.Equal(seqs(got), []uint64{kept + 8, kept + 9, kept + 10, kept + 11}) {
		t.Errorf("after a restore: %v, %d missed", seqs(got), missed)
	}
	var empty history
	empty.restore(7, events) // of another history: the number goes on
	if empty.add(view.Event{}); empty.seq != 8 || len(empty.ring) != 1 {
		t.Errorf("%d, %d events", empty.seq, len(empty.ring))
	}
}

func TestEventsWaitForTheNextOne(t *testing.T) {
	s := &Supervisor{ended: make(chan struct{})}
	_, _, more := s.history.after(0, 1)
	got := make(chan []view.Event)
	go func() {
		events, _ := s.Events(context.Background(), 0)
		got <- events
	}()
	select {
	case <-more:
		t.Fatal("more before there is anything")
	default:
	}
	s.history.add(view.Event{Kind: view.EventStarted})
	if events := <-got; len(events) != 1 || events[0].Kind != view.EventStarted {
		t.Errorf("%+v", events)
	}
	<-more
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if events, missed := s.Events(ctx, 1); events != nil || missed != 0 {
		t.Errorf("%v, %d after the end", events, missed)
	}
}
