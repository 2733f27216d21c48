package supervisor

import (
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
)

// This file is where an entry of the configuration becomes one of the machine
// and something to start, so that neither knows the other.

var restartPolicies = map[string]fsm.RestartPolicy{
	config.RestartAlways: fsm.RestartAlways, config.RestartOnFailure: fsm.RestartOnFailure, config.RestartNever: fsm.RestartNever,
}

var stopModes = map[string]fsm.StopMode{
	config.StopTree: fsm.StopTree, config.StopGroup: fsm.StopGroup, config.StopProcess: fsm.StopProcess,
}

// machineEntries is the configuration as the machine goes by it.
func machineEntries(c *config.Config) []fsm.Entry {
	entries := make([]fsm.Entry, 0, len(c.Entries))
	for _, e := range c.Entries {
		m := fsm.Entry{
			Name: e.Name, Count: e.Count, Autostart: e.Autostart, Delay: e.Delay, MinUptime: e.MinUptime,
			Restart: restartPolicies[e.Restart], SuccessExitCodes: e.SuccessExitCodes,
			StopSignal: int(e.Stop.Signal), StopTimeout: e.Stop.Timeout, StopMode: stopModes[e.Stop.Mode],
			Handover: e.Handover,
			Crashes: fsm.CrashLimit{
				Failures: e.Descendants.Failures, Within: e.Descendants.Within, Restart: e.Descendants.Action == config.ActionRestart,
			},
		}
		entries = append(entries, m)
	}
	return entries
}

// launcher makes what pkg/spawn starts an entry's incarnations with.
type launcher struct {
	command  []string // as configured, for people
	delay    time.Duration
	template *config.Template
	uid      int // who it runs as
	attr     *spawn.Attributes
	sockets  []passedSocket
	limits   []spawn.Setting     // of each slot's cgroup
	latest   map[int]*spawn.Spec // by slot: the next one differs little from it
}

// prepare makes the launchers of a configuration. Those of entries that are
// being removed stay, to say what they were.
func (s *Supervisor) prepare(c *config.Config) {
	for _, e := range c.Entries {
		l := &launcher{
			command: e.Command, delay: e.Delay, template: e.Template(s.Identity.Name, s.Environ),
			uid: os.Geteuid(), attr: attributes(e), sockets: passedSockets(e), limits: s.limits(&e.Resources),
			latest: make(map[int]*spawn.Spec),
		}
		if e.Identity != nil {
			l.uid = int(e.Identity.UID)
		}
		s.launchers[e.Name] = l
	}
}

// attributes are what a process of e is given besides what it runs; nil if e
// asks for nothing.
func attributes(e *config.Entry) *spawn.Attributes {
	a := spawn.Attributes{
		Umask: e.Umask, Nice: e.Nice, OOMScoreAdj: e.OOMScoreAdj, CPUs: e.CPUs,
		Capabilities: e.Capabilities, NoNewPrivileges: e.NoNewPrivileges,
	}
	if id := e.Identity; id != nil {
		a.Credential = &spawn.Credential{UID: id.UID, GID: id.GID, Groups: id.Groups, Name: id.User}
	}
	for _, name := range slices.Sorted(maps.Keys(e.Rlimits)) {
		l := e.Rlimits[name]
		a.Limits = append(a.Limits, spawn.Limit{Resource: l.Resource, Soft: l.Soft, Hard: l.Hard, Name: name})
	}
	if reflect.ValueOf(a).IsZero() {
		return nil
	}
	return &a
}

// describe returns an entry's command and delay.
func (s *Supervisor) describe(entry string) ([]string, time.Duration) {
	if l := s.launchers[entry]; l != nil {
		return l.command, l.delay
	}
	return []string{}, 0
}

// again returns what a slot is started with anew, nil if it has to be worked out.
func (l *launcher) again(id fsm.ID) *spawn.Spec {
	before := l.latest[id.Slot]
	if before == nil {
		return nil
	}
	spec := *before
	spec.EnvLast = config.Incarnation(id.Incarnation)
	return &spec
}

// keep has again know what a slot was started with, if it is the same the next time.
func (l *launcher) keep(slot int, spec spawn.Spec) {
	if l.template.Steady() {
		l.latest[slot] = &spec
	}
}

func (l *launcher) spec(id fsm.ID, out spawn.Stdio) (*spawn.Spec, error) {
	start, err := l.template.Start(id.Slot, id.Incarnation)
	if err != nil {
		return nil, err
	}
	return &spawn.Spec{
		Path: start.Program, Args: start.Argv, Env: start.Env, EnvLast: start.Last, Dir: start.Directory,
		Stdout: out, Stderr: out, Attributes: l.attr,
	}, nil
}

func signalName(n int) string { return config.Signal(n).String() }

// errnoName is the symbol, such as ENOENT.
func errnoName(errno unix.Errno) string {
	if name := unix.ErrnoName(errno); name != "" {
		return name
	}
	return "other"
}

// configured returns an entry of the configuration in use, or nil.
func (s *Supervisor) configured(entry string) *config.Entry {
	at, found := slices.BinarySearchFunc(s.config.Entries, entry, func(e *config.Entry, name string) int {
		return strings.Compare(e.Name, name)
	})
	if !found {
		return nil
	}
	return s.config.Entries[at]
}

// descend makes a process that has started known as one that others may descend
// from.
func (s *Supervisor) descend(c *child) { s.descendIn(c, c.startedAt, s.place(c.id).Cgroup) }

// descendIn does that for one that was its own main process at that instant.
func (s *Supervisor) descendIn(c *child, at fsm.Instant, cgroup string) {
	a := ancestor{pid: c.pid, at: at, cgroup: cgroup}
	follow := false
	if e := s.configured(c.id.Entry); e != nil {
		a.watch, follow = e.Descendants.Within > 0, e.Handover
	}
	s.descent.add(c.id, a, follow)
}
