package main

import (
	"fmt"
	"math"
	"slices"
)

// metric is one measured quantity, for every contender, by round.
type metric struct {
	name   string // short, for the JSON
	title  string
	unit   string
	digits int
	higher bool // more is better
	plain  bool // comparing it with the C floor would say nothing
	target *target
	rounds map[string][]float64 // by contender; NaN where a round failed
}

// target is what is wanted of sentryd.
type target struct {
	ratio bool // to the C floor; else absolute, in the metric's unit
	limit float64
}

// containment is by how much the ratios of sentryd with a cgroup for each slot may be worse
// than those that are wanted of its engine.
const containment = 1.15

// limitOf returns what is wanted of a contender: of sentryd with cgroups more is
// allowed, if the engine without them was measured beside it, which has to do without that.
func (m *metric) limitOf(contender string) float64 {
	switch {
	case !m.target.ratio || contender != sentrydMain || math.IsNaN(m.ratio(sentrydBare)):
		return m.target.limit
	case m.higher:
		return m.target.limit / containment
	}
	return m.target.limit * containment
}

// judged are the contenders of which something is wanted.
func judged() []string { return []string{sentrydBare, sentrydMain} }

func atLeastRatio(x float64) *target { return &target{ratio: true, limit: x} }
func atMostRatio(x float64) *target  { return &target{ratio: true, limit: x} }
func atMost(x float64) *target       { return &target{limit: x} }

// put notes the figure of one round.
func (m *metric) put(contender string, round int, v float64) {
	if m.rounds == nil {
		m.rounds = map[string][]float64{}
	}
	vs := m.rounds[contender]
	for len(vs) < round {
		vs = append(vs, math.NaN())
	}
	m.rounds[contender] = append(vs, v)
}

// value is the figure of a contender, the median of the rounds; NaN if it was
// not measured.
func (m *metric) value(contender string) float64 { return quantile(m.rounds[contender], 0.5) }

// span is the least and the most of the rounds.
func (m *metric) span(contender string) (least, most float64) {
	return quantile(m.rounds[contender], 0), quantile(m.rounds[contender], 1)
}

// ratio compares a contender with the C floor: the median of the ratios of each
// round, because both were measured within seconds of each other.
func (m *metric) ratio(contender string) float64 {
	if m.plain {
		return math.NaN()
	}
	own, floor := m.rounds[contender], m.rounds[floorC]
	ratios := make([]float64, min(len(own), len(floor)))
	for i := range ratios {
		ratios[i] = own[i] / floor[i]
	}
	return quantile(ratios, 0.5)
}

// verdict says what is wanted of a contender and whether it meets that; empty if
// that is nothing, or there is nothing to judge by.
func (m *metric) verdict(contender string) (text string, met bool) {
	if m.target == nil || !slices.Contains(judged(), contender) {
		return "", false
	}
	v, what, digits := m.value(contender), m.unit, m.digits
	if m.target.ratio {
		v, what, digits = m.ratio(contender), "x", 2
	}
	if math.IsNaN(v) {
		return "", false
	}
	sign := "<="
	limit := m.limitOf(contender)
	met = v <= limit
	if m.higher {
		sign, met = ">=", v >= limit
	}
	text = fmt.Sprintf("%s %.*f %s", sign, digits, limit, what)
	return text, met
}

// quantile is the q-quantile (nearest rank, q = 0.5 of an even number the mean
// of the middle two) of the values that are not NaN; NaN if there are none.
func quantile(values []float64, q float64) float64 {
	s := slices.DeleteFunc(slices.Clone(values), math.IsNaN)
	if len(s) == 0 {
		return math.NaN()
	}
	slices.Sort(s)
	if q == 0.5 && len(s)%2 == 0 {
		return (s[len(s)/2-1] + s[len(s)/2]) / 2
	}
	return s[max(0, int(math.Ceil(q*float64(len(s))))-1)]
}
