package api

import (
	"github.com/sentryd/sentryd/pkg/view"
)

// Result is the answer to a command about an entry.
type Result struct {
	// Version of the state in which the command took effect.
	Version uint64 `json:"version"`
	// Entry as it was once it had settled; nil when the request did not ask
	// to wait for that, or could not be kept waiting because the daemon
	// executes itself anew.
	Entry *view.Entry `json:"entry,omitempty"`
}

// Problem is the body of every error answer, RFC 9457.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

// Bodies of the POST requests about an entry. A nil Slot means all of them.
type (
	scaleRequest struct {
		Count int `json:"count"`
	}
	slotRequest struct { // start, stop
		Slot *int `json:"slot,omitempty"`
	}
	restartRequest struct {
		Slot      *int `json:"slot,omitempty"`
		AllAtOnce bool `json:"all_at_once,omitempty"`
		Batch     *int `json:"batch,omitempty"`
	}
	signalRequest struct {
		Slot   *int   `json:"slot,omitempty"`
		Signal string `json:"signal"`
	}
)

// AllSlots, given as a slot, stands for every slot of the entry.
const AllSlots = -1

// MaxCount is the largest number of slots an entry can be scaled to.
const MaxCount = 10000

// Settled says whether nothing is under way in the entry: no slot is starting,
// stopping or in backoff.
func Settled(e *view.Entry) bool {
	for _, p := range e.Processes {
		switch p.State {
		case view.Starting, view.Stopping, view.Backoff:
			return false
		}
	}
	return true
}
