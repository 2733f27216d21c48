package fsm

// pairs is what each event does to a slot in each state. The slot goes to the
// state that is named first, with the time to its deadline; "again" says that it
// will start once its tree is empty, or be replaced once it has started;
// "same", that nothing changes; "ignored", that the event is counted as one about
// an incarnation that is no more.
var pairs = map[string]map[string]string{
	"tick early": {
		others: "same",
	},
	"tick due": {
		"stopping": "stopping +1s; KILL tree",
		"leftover": "stopping +1s; KILL tree",
		"backoff":  "starting; spawn#3",
		others:     "same",
	},
	"spawned": {
		"starting": "running; started",
		others:     "ignored",
	},
	"spawn failed": {
		"starting": "backoff +1s; ended start failed: exec: ENOENT",
		others:     "ignored",
	},
	"spawn lost": {
		"starting": "backoff +1s; ended unknown after 0s, by process",
		others:     "ignored",
	},
	"exited": {
		"running":  "backoff +1s; ended exited 0, by process",
		"stopping": "stopped; ended exited 0, by command",
		others:     "ignored",
	},
	"exited, rest": {
		"running":  "stopping +10s; ended exited 0, by process; TERM and CONT tree",
		"stopping": "stopping +10s; ended exited 0, by command; TERM and CONT tree",
		others:     "ignored",
	},
	"tree empty": {
		"leftover": "backoff +1s",
		others:     "ignored",
	},
	"handover": {
		"running":  "running; 300 follows 100",
		"stopping": "stopping +10s; ended exited 0, by command; TERM and CONT tree",
		others:     "ignored",
	},
	"crash": {
		"running":  "stopping +10s again; crash loop: 1 within 1m0s; TERM and CONT main",
		"stopping": "same",
		"leftover": "same",
		others:     "ignored",
	},
	"stragglers": {
		"running":  "same",
		"stopping": "same",
		"leftover": "stopping +10s",
		others:     "ignored",
	},
	"configure": {
		others: "same",
	},
	"reload restart": {
		"stopped":  "stopped",
		"starting": "starting again",
		"running":  "stopping +10s again; TERM and CONT main",
		"stopping": "stopping +10s",
		"leftover": "stopping +10s again",
		others:     "starting; spawn#3",
	},
	"removed": {
		"starting": "starting",
		"running":  "stopping +10s; TERM and CONT main",
		"stopping": "stopping +10s",
		"leftover": "stopping +10s",
		others:     "no slot; gone",
	},
	"start": {
		"starting": "same",
		"running":  "same",
		"stopping": "stopping +10s again",
		"leftover": "stopping +10s again",
		others:     "starting; spawn#3",
	},
	"start slot": {
		"starting": "same",
		"running":  "same",
		"stopping": "stopping +10s again",
		"leftover": "stopping +10s again",
		others:     "starting; spawn#3",
	},
	"stop": {
		"starting": "starting",
		"running":  "stopping +10s; TERM and CONT main",
		"stopping": "stopping +10s",
		"leftover": "stopping +10s",
		others:     "stopped",
	},
	"stop slot": {
		"stopped":  "same",
		"starting": "starting",
		"running":  "stopping +10s; TERM and CONT main",
		"stopping": "same",
		"leftover": "stopping +10s",
		others:     "stopped",
	},
	"restart": {
		"starting": "starting again",
		"running":  "stopping +10s again; TERM and CONT main",
		"stopping": "stopping +10s again",
		"leftover": "stopping +10s again",
		others:     "starting; spawn#3",
	},
	"restart slot": {
		"starting": "starting again",
		"running":  "stopping +10s again; TERM and CONT main",
		"stopping": "stopping +10s again",
		"leftover": "stopping +10s again",
		others:     "starting; spawn#3",
	},
	"scale same": {
		others: "same",
	},
	"scale 0": {
		"starting": "starting",
		"running":  "stopping +10s; TERM and CONT main",
		"stopping": "stopping +10s",
		"leftover": "stopping +10s",
		others:     "no slot; gone",
	},
	"signal": {
		"running":  "same; HUP main",
		"stopping": "same; HUP main",
		others:     "same; refused (conflict)",
	},
	"shutdown": {
		"starting": "starting",
		"running":  "stopping +10s; TERM and CONT main",
		"stopping": "stopping +10s",
		"leftover": "stopping +10s",
		others:     "stopped; done",
	},
	"kill all": {
		others: "same",
	},
	"shutdown, kill all": {
		"starting": "starting",
		"running":  "stopping +1s; KILL tree",
		"stopping": "stopping +1s; KILL tree",
		"leftover": "stopping +1s; KILL tree",
		others:     "stopped",
	},
	"withdrawn": {
		others: "ignored",
	},
	"shutdown, withdrawn": {
		"starting": "stopped; done",
		others:     "ignored",
	},
	"told": {
		"stopping": "stopping +10s",
		"leftover": "stopping +10s",
		others:     "ignored",
	},
	"retell": {
		"stopping": "same; TERM and CONT main",
		"leftover": "same; TERM and CONT tree",
		others:     "same",
	},
	"reissue": {
		"starting": "same; spawn",
		others:     "same",
	},
}
