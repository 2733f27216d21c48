package config

import (
	"math"
	"strconv"
)

// Resources are limits of a slot, all its processes together, by cgroup v2.
type Resources struct {
	MemoryMax  int64   // bytes; above it processes are killed. 0: no limit
	MemoryHigh int64   // bytes; above it they are slowed down and reclaimed from. 0: no limit
	CPUMax     float64 // cores. 0: no limit
	PIDsMax    int     // processes and threads. 0: no limit
	Optional   bool    // go without where a controller is missing

	File string // where they are given
	Line int
}

// Controllers returns the cgroup controllers that the limits need, sorted.
func (r *Resources) Controllers() []string {
	var list []string
	if r.CPUMax > 0 {
		list = append(list, "cpu")
	}
	if r.MemoryMax > 0 || r.MemoryHigh > 0 {
		list = append(list, "memory")
	}
	if r.PIDsMax > 0 {
		list = append(list, "pids")
	}
	return list
}

const (
	minMemory = 64 << 10 // less than any process needs
	maxMemory = math.MaxInt64 / 2
	minCPU    = 0.01 // the kernel wants a millisecond in a tenth of a second
	maxCPU    = 10_000
	maxPIDs   = 4 << 20 // PID_MAX_LIMIT, include/linux/threads.h
)

var resourceKeys = []key[Resources]{
	{name: "memory_max", read: func(v value, r *Resources) { v.size(&r.MemoryMax, minMemory, maxMemory) }},
	{name: "memory_high", read: func(v value, r *Resources) { v.size(&r.MemoryHigh, minMemory, maxMemory) }},
	{name: "cpu_max", read: func(v value, r *Resources) { v.cores(&r.CPUMax) }},
	{name: "pids_max", read: func(v value, r *Resources) { v.integer(&r.PIDsMax, 1, maxPIDs) }},
	{name: "optional", read: func(v value, r *Resources) { v.truth(&r.Optional) }},
}

func readResources(v value, d *draft) {
	decode(v, resourceKeys, &d.Resources)
	d.Resources.File, d.Resources.Line = v.file, v.line
}

var decimalFraction = syntax(`^(?:0|[1-9][0-9]*)(?:\.[0-9]+)?$`)

// cores reads a number of processor cores, which may be a fraction.
func (v value) cores(to *float64) {
	const want = "a number of cores from 0.01 to 10000, such as 1.5"
	s, ok := v.scalar(want)
	if !ok {
		return
	}
	n, err := strconv.ParseFloat(s, 64)
	number := decimalFraction.MatchString(s)
	if !v.plain() || !number || err != nil || n < minCPU || n > maxCPU {
		v.refuse(want, number)
		return
	}
	*to = n
}
