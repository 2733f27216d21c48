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

// TestContainmentMayCost: with cgroups 15 % more is allowed, where the engine without
// them was measured beside; what is no ratio stays.
func TestContainmentMayCost(t *testing.T) {
	for _, c := range []struct {
		m          metric
		bare, main float64 // a round; 0: not measured
		verdicts   [2]string
		met        [2]bool
	}{
		{metric{target: atMostRatio(1.2)}, 119, 137, [2]string{"<= 1.20 x", "<= 1.38 x"}, [2]bool{true, true}},
		{metric{target: atMostRatio(1.2)}, 121, 139, [2]string{"<= 1.20 x", "<= 1.38 x"}, [2]bool{}},
		{metric{target: atMostRatio(1.2)}, 0, 121, [2]string{"", "<= 1.20 x"}, [2]bool{}},
		{metric{target: atLeastRatio(0.65), higher: true}, 65, 57, [2]string{">= 0.65 x", ">= 0.57 x"}, [2]bool{true, true}},
		{metric{target: atMost(5), plain: true, unit: "/s"}, 0, 5.5, [2]string{"", "<= 5 /s"}, [2]bool{}},
	} {
		c.m.put(floorC, 0, 100)
		for name, v := range map[string]float64{sentrydBare: c.bare, sentrydMain: c.main} {
			if v > 0 {
				c.m.put(name, 0, v)
			}
		}
		for i, name := range []string{sentrydBare, sentrydMain} {
			if text, met := c.m.verdict(name); text != c.verdicts[i] || met != c.met[i] {
				t.Errorf("%+v: %s: %q %v, want %q %v", c.m.target, name, text, met, c.verdicts[i], c.met[i])
			}
		}
	}
}
