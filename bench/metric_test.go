package main

import (
	"math"
	"testing"
)

func TestQuantile(t *testing.T) {
	nan := math.NaN()
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for _, c := range []struct {
		values []float64
		q      float64
		want   float64
	}{
		{nil, 0.5, nan},
		{[]float64{nan}, 0.5, nan},
		{[]float64{3}, 0.99, 3},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, nan, 2, 3}, 0.5, 2.5},
		{[]float64{3, 1, 2}, 0, 1},
		{[]float64{3, 1, 2}, 1, 3},
		{hundred, 0.99, 99},
		{hundred, 0.5, 50.5},
	} {
		if got := quantile(c.values, c.q); got != c.want && !(math.IsNaN(got) && math.IsNaN(c.want)) {
			t.Errorf("quantile(%v, %v) = %v, want %v", c.values, c.q, got, c.want)
		}
	}
}

// A slow moment of the machine hits both contenders of a round; the ratio of
// the medians would compare one contender's bad moment with the other's good one.
func TestRatioIsByRound(t *testing.T) {
	m := &metric{higher: true, target: atLeastRatio(0.65)}
	for round, v := range []float64{1000, 400, 1000} {
		m.put(floorC, round, v)
		m.put(sentrydMain, round, v*0.7)
	}
	if got := m.ratio(sentrydMain); got != 0.7 {
		t.Errorf("ratio = %v, want 0.7", got)
	}
	if text, met := m.verdict(sentrydMain); !met || text != ">= 0.65 x" {
		t.Errorf("verdict = %q, %v", text, met)
	}
	m.put(supervisord, 1, 40) // round 0 failed
	if got := m.ratio(supervisord); got != 0.1 {
		t.Errorf("ratio with a round missing = %v, want 0.1", got)
	}
	if _, met := m.verdict(dinit); met {
		t.Error("a contender that was never measured meets the target")
	}
}
