package config

import (
	"cmp"
	"slices"
)

// Config is a whole configuration, valid and complete.
type Config struct {
	Name          string // of the daemon: the file's base name without its ending
	Path          string // of the file, absolute
	HTTP          HTTP
	Control       Control
	ProcConnector ProcConnector
	Entries       []*Entry // sorted by name
	Sources       []Source // every file that was read, in the order of reading
}

// HTTP says where the API is served.
type HTTP struct {
	Listen []string // host:port; empty: no TCP at all
	Hosts  []string // further Host names that a loopback address answers to, in lower case
}

// Control says who may change things, besides root and the daemon's own user: ids,
// sorted.
type Control struct {
	Users, Groups []uint32
}

// ProcConnector configures the kernel's process events.
type ProcConnector struct {
	Enabled bool
	Events  string // which are asked for: EventsAll or EventsExit
	Buffer  int64  // bytes of socket memory to ask for
}

// Values of ProcConnector.Events.
const (
	EventsAll  = "all"
	EventsExit = "exit"
)

const (
	defaultListen = "127.0.0.1:8001"
	defaultBuffer = 64 << 20
	minBuffer     = 4 << 10
	maxBuffer     = 1 << 30 // SO_RCVBUFFORCE takes an int and the kernel doubles it
)

// Entry returns the entry of that name, or nil.
func (c *Config) Entry(name string) *Entry {
	i, ok := slices.BinarySearchFunc(c.Entries, name, func(e *Entry, name string) int {
		return cmp.Compare(e.Name, name)
	})
	if !ok {
		return nil
	}
	return c.Entries[i]
}

// file is the main file while it is read. What other keys depend on is put
// aside first.
type file struct {
	*Config
	include, defaults, entries *value
	users, groups              []named // of control
}

func keep(to func(*file) **value) func(value, *file) {
	return func(v value, f *file) { *to(f) = &v }
}

var fileKeys = []key[file]{
	{name: "http", read: func(v value, f *file) { decode(v, httpKeys, f) }},
	{name: "control", read: func(v value, f *file) { decode(v, controlKeys, f) }},
	{name: "proc_connector", read: func(v value, f *file) { decode(v, connectorKeys, f) }},
	{name: "include", read: keep(func(f *file) **value { return &f.include })},
	{name: "defaults", read: keep(func(f *file) **value { return &f.defaults })},
	{name: "entries", read: keep(func(f *file) **value { return &f.entries })},
}

// includedKeys is what an included file may hold.
var includedKeys = []key[file]{
	{name: "entries", read: keep(func(f *file) **value { return &f.entries })},
	{name: "http", read: mainFileOnly},
	{name: "control", read: mainFileOnly},
	{name: "proc_connector", read: mainFileOnly},
	{name: "include", read: mainFileOnly},
	{name: "defaults", read: mainFileOnly},
}

func mainFileOnly(v value, _ *file) {
	v.fail("belongs in the main file: an included file holds entries only")
}

var httpKeys = []key[file]{
	{"listen", readListen, func(f *file) any { return f.HTTP.Listen }, true},
	{"hosts", readHosts, func(f *file) any { return f.HTTP.Hosts }, true},
}

var controlKeys = []key[file]{
	{"users", func(v value, f *file) { f.users = v.accounts("user") }, func(f *file) any { return f.Control.Users }, true},
	{"groups", func(v value, f *file) { f.groups = v.accounts("group") }, func(f *file) any { return f.Control.Groups }, true},
}

var connectorKeys = []key[file]{
	{"enabled", func(v value, f *file) { v.truth(&f.ProcConnector.Enabled) }, func(f *file) any { return f.ProcConnector.Enabled }, true},
	{"events", func(v value, f *file) { v.oneOf(&f.ProcConnector.Events, EventsAll, EventsExit) }, func(f *file) any { return f.ProcConnector.Events }, true},
	{"buffer", func(v value, f *file) { v.size(&f.ProcConnector.Buffer, minBuffer, maxBuffer) }, func(f *file) any { return f.ProcConnector.Buffer }, true},
}
