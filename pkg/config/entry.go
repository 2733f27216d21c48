package config

import (
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/kballard/go-shellquote"
	"gopkg.in/yaml.v3"
)

// MaxCount is the highest number of slots an entry may have.
const MaxCount = 10_000

// Values of Entry.Restart.
const (
	RestartAlways    = "always"
	RestartOnFailure = "on-failure"
	RestartNever     = "never"
)

// Values of Stop.Mode: who gets the stop signal.
const (
	StopTree    = "tree"    // the main process, then all that is left of its tree
	StopGroup   = "group"   // its process group at once
	StopProcess = "process" // the main process alone
)

// Entry is one named program specification, complete: defaults are applied.
type Entry struct {
	Name string
	// Command is the argv as configured, never empty, before $(VAR) is
	// expanded: what is shown wherever a command is shown.
	Command          []string
	Delay            time.Duration // before a restart, from the exit of the main process
	Count            int           // slots, 0 to MaxCount
	Autostart        bool
	Restart          string        // RestartAlways, RestartOnFailure or RestartNever
	SuccessExitCodes []int         // sorted, each 0 to 255; may be empty
	MinUptime        time.Duration // an exit before it counts as a failure
	Stop             Stop
	Resources        Resources
	// Directory is as configured, before expansion: "" for the daemon's own
	// working directory. A relative one starts at the configuration file.
	Directory   string
	Environment map[string]string // values before expansion; never nil
	EnvFile     string            // absolute path, or ""
	EnvFileVars []KV              // its content
	CleanEnv    bool              // do not pass on the daemon's own environment
	Identity    *Identity         // nil: who the daemon is
	Attributes
	Handover    bool        // a main process that exits 0 may be followed by a descendant
	Descendants Descendants // crashes below the main process
	Sockets     []Socket    // in the order in which they are passed

	File string // where the entry is given
	Line int

	base    string  // directory of the configuration file, where relative paths start
	written written // to name the key that changed
}

// written is a command in the way it was written.
type written struct {
	text string   // command: "sleep 4"
	list []string // command: [sleep, "4"]
	args []string // args: ["4"]; nil when not given
}

// Stop is how a slot is stopped.
type Stop struct {
	Signal  Signal
	Timeout time.Duration // after the signal: SIGKILL to all that is left
	Mode    string        // StopTree, StopGroup or StopProcess
}

// Descendants is what is done when more than Failures descendants of a main
// process crash Within a while. Within 0: nothing.
type Descendants struct {
	Failures int
	Within   time.Duration
	Action   string // ActionReport or ActionRestart
}

// Values of Descendants.Action.
const (
	ActionReport  = "report"
	ActionRestart = "restart"
)

// maxFailures bounds what has to be kept in mind for a window.
const maxFailures = 10_000

// draft is an entry while it is read.
type draft struct {
	Entry
	commandAt, argsAt, envFileAt value    // where each is given, for errors that need more than one key
	badCommand, badArgs          bool     // an error was reported already
	meant                        []string // what unknown keys are likely to be
	id                           identityKeys
	host                         *host
	socketsAt                    []value // the address of each socket
}

// newDraft returns the built-in defaults.
func newDraft(base string) draft {
	return draft{Entry: Entry{
		Delay:            time.Second,
		Count:            1,
		Autostart:        true,
		Restart:          RestartAlways,
		SuccessExitCodes: []int{0},
		Stop:             Stop{Signal: defaultStopSignal, Timeout: 10 * time.Second, Mode: StopTree},
		Environment:      map[string]string{},
		base:             base,
	}}
}

// clone returns a draft that shares nothing that reading an entry changes in
// place. Lists are replaced as a whole.
func (d draft) clone() draft {
	d.Environment = maps.Clone(d.Environment)
	d.Rlimits = maps.Clone(d.Rlimits)
	return d
}

// entryKeys is every key of an entry, in the order in which changes are named.
var entryKeys = []key[draft]{
	{"command", readCommand, func(d *draft) any { return []any{d.written.text, d.written.list} }, false},
	{"args", readArgs, func(d *draft) any { return d.written.args }, false},
	{"delay", func(v value, d *draft) { v.duration(&d.Delay) }, func(d *draft) any { return d.Delay }, true},
	{"count", func(v value, d *draft) { v.integer(&d.Count, 0, MaxCount) }, func(d *draft) any { return d.Count }, true},
	{"autostart", func(v value, d *draft) { v.truth(&d.Autostart) }, func(d *draft) any { return d.Autostart }, true},
	{"restart", func(v value, d *draft) { v.oneOf(&d.Restart, RestartAlways, RestartOnFailure, RestartNever) }, func(d *draft) any { return d.Restart }, true},
	{"success_exit_codes", readExitCodes, func(d *draft) any { return d.SuccessExitCodes }, true},
	{"min_uptime", func(v value, d *draft) { v.duration(&d.MinUptime) }, func(d *draft) any { return d.MinUptime }, true},
	{"stop", func(v value, d *draft) { decode(v, stopKeys, &d.Stop) }, func(d *draft) any { return d.Stop }, true},
	{"resources", readResources, func(d *draft) any { r := d.Resources; r.File, r.Line = "", 0; return r }, true},
	{"directory", readDirectory, func(d *draft) any { return d.Directory }, false},
	{"environment", readEnvironment, func(d *draft) any { return d.Environment }, false},
	{"env_file", readEnvFile, func(d *draft) any { return variables(d.EnvFileVars) }, false},
	{"clean_env", func(v value, d *draft) { v.truth(&d.CleanEnv) }, func(d *draft) any { return d.CleanEnv }, false},
	{"user", readUser, userDecides, false},
	{"group", readGroup, groupDecides, false},
	{"groups", readGroups, groupsDecide, false},
	{"umask", readUmask, func(d *draft) any { return d.Umask }, false},
	{"nice", readNice, func(d *draft) any { return d.Nice }, false},
	{"oom_score_adj", func(v value, d *draft) { v.number(&d.OOMScoreAdj, -1000, 1000) }, func(d *draft) any { return d.OOMScoreAdj }, false},
	{"cpu_affinity", readAffinity, func(d *draft) any { return d.CPUs }, false},
	{"rlimits", readRlimits, func(d *draft) any { return d.Rlimits }, false},
	{"capabilities", readCapabilities, capabilitiesDecide, false},
	{"no_new_privileges", func(v value, d *draft) { v.truth(&d.NoNewPrivileges) }, func(d *draft) any { return d.NoNewPrivileges }, false},
	{"handover", func(v value, d *draft) { v.truth(&d.Handover) }, func(d *draft) any { return d.Handover }, true},
	{"descendants", readDescendants, func(d *draft) any { return d.Descendants }, true},
	{"sockets", readSockets, func(d *draft) any { return d.Sockets }, false},
}

var stopKeys = []key[Stop]{
	{name: "signal", read: readSignal},
	{name: "timeout", read: func(v value, s *Stop) { v.duration(&s.Timeout) }},
	{name: "mode", read: func(v value, s *Stop) { v.oneOf(&s.Mode, StopTree, StopGroup, StopProcess) }},
}

func readDescendants(v value, d *draft) {
	limit := Descendants{Action: ActionReport}
	var failures, within bool
	meant := decode(v, []key[Descendants]{
		{name: "failures", read: func(v value, l *Descendants) {
			failures = true
			v.integer(&l.Failures, 0, maxFailures)
		}},
		{name: "within", read: func(v value, l *Descendants) {
			within = true
			l.Within = -1
			if v.duration(&l.Within); l.Within == 0 {
				v.fail("must be above 0")
			}
		}},
		{name: "action", read: func(v value, l *Descendants) { v.oneOf(&l.Action, ActionReport, ActionRestart) }},
	}, &limit)
	failures = failures || slices.Contains(meant, "failures")
	within = within || slices.Contains(meant, "within")
	if v.node.Kind == yaml.MappingNode && !(failures && within) {
		v.fail("must have both, failures and within")
	}
	d.Descendants = limit
}

func readCommand(v value, d *draft) {
	d.commandAt, d.written.text, d.written.list = v, "", nil
	if v.node.Kind == yaml.SequenceNode {
		d.badCommand = !v.patterns(&d.written.list)
	} else {
		d.badCommand = !v.pattern(&d.written.text)
	}
}

func readArgs(v value, d *draft) {
	d.argsAt, d.written.args = v, nil
	d.badArgs = !v.patterns(&d.written.args)
}

func readExitCodes(v value, d *draft) {
	codes := make([]int, 0, len(v.node.Content))
	v.list(func(v value) {
		code := -1
		v.integer(&code, 0, 255)
		codes = append(codes, code)
	})
	slices.Sort(codes)
	d.SuccessExitCodes = slices.Compact(codes)
}

func readSignal(v value, s *Stop) {
	text, ok := v.scalar("a signal: write a name (TERM) or a number (15)")
	if !ok {
		return
	}
	sig, err := ParseSignal(text)
	if err != nil {
		v.fail("%v", err)
		return
	}
	s.Signal = sig
}

func readDirectory(v value, d *draft) {
	if v.pattern(&d.Directory) && d.Directory == "" {
		v.fail("must not be empty: leave the key out for the daemon's own directory")
	}
}

func readEnvironment(v value, d *draft) {
	if v.node.Kind != yaml.MappingNode {
		v.fail("must be a map, NAME: value") // what it is instead may be secret
		return
	}
	v.each(func(name string, v value) {
		if !environmentName.MatchString(name) {
			v.fail("not the name of a variable: letters, digits, _, . and -, the first a letter or _")
			return
		}
		// Numbers and truth values are taken as they are written.
		text, ok := v.scalar(`a value: write "" for an empty one`)
		if !ok {
			return
		}
		if _, err := parsePattern(text); err != nil {
			v.fail("%v", err)
			return
		}
		d.Environment[name] = text
	})
}

func readEnvFile(v value, d *draft) {
	var path string
	if !v.text(&path) {
		return
	}
	if path == "" {
		v.fail("must not be empty")
		return
	}
	d.EnvFile, d.envFileAt = absolute(d.base, path), v
}

// finish turns the draft of an entry, given at v, into the entry.
func (d *draft) finish(name string, v value) *Entry {
	e := d.Entry
	e.Name, e.File, e.Line = name, v.file, v.at
	given := d.commandAt.given()
	switch w := e.written; {
	case !given:
		if !slices.Contains(d.meant, "command") {
			v.fail(`the key "command" is missing`)
		}
		return &e
	case d.badCommand || d.badArgs:
		return &e
	case w.list != nil && w.args != nil:
		d.argsAt.fail("a command that is a list is the whole argv: put the arguments there, or make the command a string")
		return &e
	case w.list != nil:
		e.Command = w.list
	case w.args != nil:
		e.Command = append([]string{w.text}, w.args...)
	default:
		words, err := shellquote.Split(w.text)
		if err != nil {
			d.commandAt.fail("%s cannot be split into words: a quote or a backslash at its end is not closed", d.commandAt.describe())
			return &e
		}
		for _, word := range words { // quotes are gone only now
			if _, err := parsePattern(word); err != nil {
				d.commandAt.fail("%v", err)
			}
		}
		e.Command = words
	}
	if len(e.Command) == 0 || e.Command[0] == "" {
		d.commandAt.fail("names no program")
	}
	return &e
}

// variables is a set of variables without their order.
func variables(list []KV) map[string]string {
	m := make(map[string]string, len(list))
	for _, kv := range list {
		m[kv.Name] = kv.Value
	}
	return m
}

// absolute returns path, where a relative one starts at base.
func absolute(base, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(base, path)
}
