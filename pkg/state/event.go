package state

// Event is one of the last events that readers may not have seen yet.
type Event struct {
	Seq         uint64     `json:"seq"`
	Wall        int64      `json:"wall"`
	Kind        string     `json:"kind"`
	Entry       string     `json:"entry,omitempty"`
	Slot        *int       `json:"slot,omitempty"`
	Incarnation uint64     `json:"incarnation,omitempty"`
	PID         int        `json:"pid,omitempty"`
	Exit        *EventExit `json:"exit,omitempty"`
	NextWall    int64      `json:"next_wall,omitempty"`
	Count       *int       `json:"count,omitempty"`
	Initiator   string     `json:"initiator,omitempty"`
	Message     string     `json:"message,omitempty"`
}

// EventExit is how the incarnation of an event ended, as readers are told.
type EventExit struct {
	Reason      string   `json:"reason"`
	Code        *int     `json:"code,omitempty"`
	Signal      string   `json:"signal,omitempty"`
	Core        bool     `json:"core,omitempty"`
	OOM         bool     `json:"oom,omitempty"`
	Initiator   string   `json:"initiator"`
	Error       string   `json:"error,omitempty"`
	UptimeMS    int64    `json:"uptime_ms"`
	CPUSeconds  *float64 `json:"cpu_seconds,omitempty"`
	MaxRSSBytes *int64   `json:"max_rss_bytes,omitempty"`
}
