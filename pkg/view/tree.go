package view

import "time"

// Tree is the living processes of an entry.
type Tree struct {
	Entry  string     `json:"entry"`
	Source string     `json:"source"` // FromEvents, FromCgroups or FromParents
	Slots  []TreeSlot `json:"slots"`  // sorted by slot; those that have a process
}

// Values of Tree.Source: how it is known which processes belong to an entry.
const (
	FromEvents  = "proc_connector" // by their forks, as the kernel told of them
	FromCgroups = "cgroup"         // they are in the cgroup of the slot
	FromParents = "proc"           // by parents and sessions, as far as /proc shows them
)

// TreeSlot is the processes of one slot.
type TreeSlot struct {
	Slot        int    `json:"slot"`
	Incarnation uint64 `json:"incarnation"`
	// Processes are in the order of a tree: each one's children follow it.
	Processes []TreeProcess `json:"processes"`
}

// TreeProcess is one process.
type TreeProcess struct {
	PID       int       `json:"pid"`
	Parent    int       `json:"parent"` // 0 when that is not a process of the slot
	Depth     int       `json:"depth"`  // how many such parents are above it
	Main      bool      `json:"main"`
	StartedAt time.Time `json:"started_at"`
	State     string    `json:"state"`   // a letter, as in proc_pid_stat(5): R, S, D, T, Z
	Name      string    `json:"name"`    // as the kernel has it, at most 15 bytes
	Command   []string  `json:"command"` // empty for one that is about to end, or cleared it
}
