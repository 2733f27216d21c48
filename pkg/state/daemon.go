package state

import (
	"encoding/json"
	"fmt"
	"time"
)

// Daemon is everything that a daemon hands to the image that goes on after it.
// These types are the saved form and nothing else: they change only by adding
// fields, so that an older and a newer program can read each other's state.
// Instants are nanoseconds of CLOCK_MONOTONIC, which is the same for all
// processes of a boot; Wall times are nanoseconds since the epoch.
type Daemon struct {
	Name         string   `json:"name"`
	Binary       string   `json:"binary"` // path to execve, as recorded at the first start
	Args         []string `json:"args"`
	Config       string   `json:"config"`
	StartedWall  int64    `json:"started_wall"`
	ReexecedWall int64    `json:"reexeced_wall,omitempty"` // 0 before the first
	Reexecs      uint64   `json:"reexecs"`
	Version      uint64   `json:"version"`          // of the published state
	Seq          uint64   `json:"seq,omitempty"`    // of the last event
	Events       []Event  `json:"events,omitempty"` // the last ones

	// Applied is the configuration that the machine works by; Checked is the
	// one to go on with.
	Applied []Source `json:"applied"`
	Checked []Source `json:"checked"`

	Machine Machine `json:"machine"`
	// Descendants is how many processes lived below the main ones, by entry, without entries
	// that had none; nil if that was not known.
	Descendants map[string]int `json:"descendants,omitzero"`
	// Cgroups is the directory in which the slots' cgroups are.
	Cgroups string   `json:"cgroups,omitempty"`
	Sockets []Socket `json:"sockets,omitempty"` // of entries
	// Kept are the names of the descriptors that the service manager keeps.
	Kept []string `json:"kept,omitempty"`
	// Settled: of the starts that are pending none has happened, nor will.
	Settled  bool     `json:"settled,omitempty"`
	Counters Counters `json:"counters"`
	Reload   Reload   `json:"reload"`
	// Output is what pkg/logs hands over; nil in a preflight, which needs none of it,
	// and in a journal.
	Output *Output `json:"-"`
}

// Saved returns d in the form that is handed over by a program of that version: the
// records of a journal, which are read in a tenth of the time that JSON takes.
func (d *Daemon) Saved(version string) (*Saved, error) {
	var b Batch
	if err := b.All(d, nil, Marks{}); err != nil {
		return nil, fmt.Errorf("encode the state: %w", err)
	}
	if d.Output != nil {
		b.output(d.Output)
	}
	return &Saved{Header: Header{Version: version}, Payload: b.buf[batchHeadLen:]}, nil
}

// Daemon is the inverse of [Daemon.Saved]. What a newer program added and this one
// does not know is passed over.
func (s *Saved) Daemon() (*Daemon, error) {
	if s.lines {
		return s.fromJSON()
	}
	p := newReplay()
	p.batch(s.Payload)
	d := p.result(&p.report)
	if p.report.Bad > 0 {
		return nil, fmt.Errorf("decode the state: %s", &p.report)
	}
	d.Output = p.output
	return d, nil
}

// fromJSON reads format 1.
func (s *Saved) fromJSON() (*Daemon, error) {
	d := new(Daemon)
	if err := json.Unmarshal(s.Payload, d); err != nil {
		return nil, fmt.Errorf("decode the state: %w", err)
	}
	if err := json.Unmarshal(s.output, &d.Output); err != nil {
		return nil, fmt.Errorf("decode the state: output: %w", err)
	}
	return d, nil
}

// Socket is a socket that processes are started with; its descriptor is among
// the files.
type Socket struct {
	Network   string `json:"network"`
	Address   string `json:"address"`
	ReusePort bool   `json:"reuse_port,omitempty"`
	Index     int    `json:"index,omitempty"` // of the slot, with ReusePort
	Cookie    uint64 `json:"cookie"`          // SO_COOKIE
	Dev       uint64 `json:"dev,omitempty"`   // of a unix socket's file
	Ino       uint64 `json:"ino,omitempty"`
}

// Source is a configuration file as it was read.
type Source struct {
	Path string `json:"path"`
	Data []byte `json:"data"`
}

// Reload is the outcome of the last reload.
type Reload struct {
	Wall        int64  `json:"wall"`
	OK          bool   `json:"ok"`
	Error       string `json:"error,omitempty"`
	SuccessWall int64  `json:"success_wall"`
}

// Counters are the daemon's own.
type Counters struct {
	Reexecs         map[string]uint64 `json:"reexecs,omitempty"`
	Failures        map[string]uint64 `json:"failures,omitempty"`
	ProcEvents      map[string]uint64 `json:"proc_events,omitempty"`
	ProcLost        uint64            `json:"proc_lost,omitempty"`
	ProcResyncs     uint64            `json:"proc_resyncs,omitempty"`
	Adopted         uint64            `json:"adopted,omitempty"`
	DetectionCounts []uint64          `json:"detection_counts,omitempty"`
	DetectionSum    float64           `json:"detection_sum,omitempty"`
}

// Machine is the supervisor's state machine.
type Machine struct {
	Stopping bool    `json:"stopping,omitempty"`
	Killing  bool    `json:"killing,omitempty"`
	Done     bool    `json:"done,omitempty"`
	Ignored  uint64  `json:"ignored,omitempty"`
	Entries  []Entry `json:"entries"`
}

// Entry is the state of an entry; its configuration is in the sources.
type Entry struct {
	Name    string          `json:"name"`
	Spec    Spec            `json:"spec"`
	Count   int             `json:"count"` // slots wanted
	CountBy string          `json:"count_by,omitempty"`
	Held    bool            `json:"held,omitempty"`
	Removed bool            `json:"removed,omitempty"`
	Retired map[int]Retired `json:"retired,omitempty"`
	Roll    Roll            `json:"roll"`
	Totals  Totals          `json:"totals"`
	Slots   []Slot          `json:"slots"`
	// Uncounted are the exits that a journal's slots tell of and that are not in
	// Totals yet.
	Uncounted []Exit `json:"uncounted,omitempty"`
}

// Retired is what outlives a slot that has gone.
type Retired struct {
	Incarnation uint64 `json:"incarnation"` // its last
	Held        bool   `json:"held,omitempty"`
}

// Spec is what the machine goes by for an entry.
type Spec struct {
	Count            int   `json:"count"` // as configured
	Autostart        bool  `json:"autostart"`
	DelayNS          int64 `json:"delay_ns"`
	MinUptimeNS      int64 `json:"min_uptime_ns"`
	Restart          uint8 `json:"restart"`
	SuccessExitCodes []int `json:"success_exit_codes"`
	StopSignal       int   `json:"stop_signal"`
	StopTimeoutNS    int64 `json:"stop_timeout_ns"`
	StopMode         uint8 `json:"stop_mode"`
	Handover         bool  `json:"handover,omitempty"`
	CrashFailures    int   `json:"crash_failures,omitempty"` // of descendants
	CrashWithinNS    int64 `json:"crash_within_ns,omitempty"`
	CrashRestart     bool  `json:"crash_restart,omitempty"`
}

// Roll is a rolling restart.
type Roll struct {
	Gen    uint64 `json:"gen,omitempty"`
	Next   int    `json:"next,omitempty"`
	Batch  int    `json:"batch,omitempty"`
	By     string `json:"by,omitempty"`
	Active bool   `json:"active,omitempty"`
}

// Totals are an entry's counters.
type Totals struct {
	Starts        uint64            `json:"starts"`
	Exits         uint64            `json:"exits"`
	ByStatus      []StatusTotal     `json:"by_status,omitempty"`
	StartFailures map[string]uint64 `json:"start_failures,omitempty"`
	Uptime        Histogram         `json:"uptime"`
	Latency       Histogram         `json:"latency"`
	UserNS        int64             `json:"user_ns"`
	SysNS         int64             `json:"sys_ns"`
	OOMKills      uint64            `json:"oom_kills,omitempty"`
	// Of descendants of the main processes.
	Forks           uint64            `json:"forks,omitempty"`
	Execs           uint64            `json:"execs,omitempty"`
	Coredumps       uint64            `json:"coredumps,omitempty"`
	DescendantExits map[string]uint64 `json:"descendant_exits,omitempty"` // by reason
}

// StatusTotal counts the exits that ended in one way.
type StatusTotal struct {
	Reason string `json:"reason"`
	Number int    `json:"number"`
	N      uint64 `json:"n"`
}

// Histogram is counts by bucket.
type Histogram struct {
	Counts []uint64 `json:"counts,omitempty"`
	SumNS  int64    `json:"sum_ns"`
}

// Slot is the state of a slot.
type Slot struct {
	Slot        int    `json:"slot"`
	Incarnation uint64 `json:"incarnation"`
	State       string `json:"state"`
	Held        bool   `json:"held,omitempty"`
	Pending     bool   `json:"pending,omitempty"`
	Live        bool   `json:"live,omitempty"`
	Tree        bool   `json:"tree,omitempty"`
	PID         int    `json:"pid,omitempty"`
	Restart     bool   `json:"restart,omitempty"`
	RestartBy   string `json:"restart_by,omitempty"`
	StopBy      string `json:"stop_by,omitempty"`
	Outcome     string `json:"outcome,omitempty"`
	Kills       int    `json:"kills,omitempty"`
	Deadline    *int64 `json:"deadline,omitempty"`
	Due         *int64 `json:"due,omitempty"`
	StartedAt   int64  `json:"started_at,omitempty"`
	StartedWall int64  `json:"started_wall,omitempty"`
	ExitedAt    int64  `json:"exited_at,omitempty"`
	StartFails  int    `json:"start_fails,omitempty"`
	Error       string `json:"error,omitempty"`
	Members     []int  `json:"members,omitempty"`
	Rolling     bool   `json:"rolling,omitempty"`
	Gen         uint64 `json:"gen,omitempty"`
	Last        *Exit  `json:"last,omitempty"`
	// Cgroup is the name in Daemon.Cgroups, or the path, of the cgroup that its
	// processes are in.
	Cgroup string `json:"cgroup,omitempty"`
	// Told: its process was told to end.
	Told bool `json:"told,omitempty"`
	// Survivor: its process was started by a daemon that died since.
	Survivor bool `json:"survivor,omitempty"`
	// Crashes are those of descendants that still count.
	Crashes []int64 `json:"crashes,omitempty"`
}

// Exit is the record of an incarnation that ended or could not start.
type Exit struct {
	At          int64  `json:"at"`
	Wall        int64  `json:"wall"`
	PID         int    `json:"pid,omitempty"`
	Incarnation uint64 `json:"incarnation"`
	Reason      string `json:"reason"`
	Code        int    `json:"code,omitempty"`
	Signal      int    `json:"signal,omitempty"`
	Core        bool   `json:"core,omitempty"`
	OOM         bool   `json:"oom,omitempty"`
	Initiator   string `json:"initiator,omitempty"`
	Error       string `json:"error,omitempty"`
	UptimeNS    int64  `json:"uptime_ns,omitempty"`
	UsageSet    bool   `json:"usage_set,omitempty"`
	UserNS      int64  `json:"user_ns,omitempty"`
	SysNS       int64  `json:"sys_ns,omitempty"`
	MaxRSS      int64  `json:"max_rss,omitempty"`
	Nth         uint64 `json:"nth,omitempty"` // which of the exits that its entry counts; 0: none of them
}

// Time returns a Wall time, or nil for 0.
func Time(wall int64) *time.Time {
	if wall == 0 {
		return nil
	}
	t := time.Unix(0, wall)
	return &t
}
