package config

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
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

// Control says who may change things, besides root and the daemon's own user:
// names or decimal ids, not resolved.
type Control struct {
	Users, Groups []string
}

// ProcConnector configures the kernel's process events.
type ProcConnector struct {
	Enabled bool
	Buffer  int64 // bytes of socket memory to ask for
}

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
}

func keep(to func(*file) **value) func(value, *file) {
	return func(v value, f *file) { *to(f) = &v }
}

var fileKeys = []key[file]{
	{name: "http", read: func(v value, f *file) { decode(v, httpKeys, f.Config) }},
	{name: "control", read: func(v value, f *file) { decode(v, controlKeys, f.Config) }},
	{name: "proc_connector", read: func(v value, f *file) { decode(v, connectorKeys, f.Config) }},
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

var httpKeys = []key[Config]{
	{"listen", readListen, func(c *Config) any { return c.HTTP.Listen }, true},
	{"hosts", readHosts, func(c *Config) any { return c.HTTP.Hosts }, true},
}

var controlKeys = []key[Config]{
	{"users", func(v value, c *Config) { readAccounts(v, &c.Control.Users) }, func(c *Config) any { return c.Control.Users }, true},
	{"groups", func(v value, c *Config) { readAccounts(v, &c.Control.Groups) }, func(c *Config) any { return c.Control.Groups }, true},
}

var connectorKeys = []key[Config]{
	{"enabled", func(v value, c *Config) { v.truth(&c.ProcConnector.Enabled) }, func(c *Config) any { return c.ProcConnector.Enabled }, true},
	{"buffer", func(v value, c *Config) { v.size(&c.ProcConnector.Buffer, minBuffer, maxBuffer) }, func(c *Config) any { return c.ProcConnector.Buffer }, true},
}

// loader reads a configuration from its files.
type loader struct {
	files    files
	errs     Errors
	config   *Config
	base     string // directory of the main file
	defaults draft
	given    map[string]*Entry
	envFiles map[string][]KV
}

// load reads the main file at an absolute path and all that it names.
func load(path string, fs files) (*Config, error) {
	l := &loader{files: fs, base: filepath.Dir(path), given: map[string]*Entry{}, envFiles: map[string][]KV{}}
	l.config = &Config{
		Path:          path,
		HTTP:          HTTP{Listen: []string{defaultListen}, Hosts: []string{}},
		Control:       Control{Users: []string{}, Groups: []string{}},
		ProcConnector: ProcConnector{Enabled: true, Buffer: defaultBuffer},
	}
	l.defaults = newDraft(l.base)
	var err error
	if l.config.Name, err = NameOf(path); err != nil {
		l.errs = append(l.errs, Error{File: path, Message: err.Error()})
	}
	if data, err := fs.read(path); err != nil {
		l.errs = append(l.errs, Error{File: path, Message: err.Error()})
	} else {
		l.main(path, data)
	}
	if len(l.errs) > 0 {
		return nil, l.errs.settle()
	}
	slices.SortFunc(l.config.Entries, func(a, b *Entry) int { return cmp.Compare(a.Name, b.Name) })
	l.config.Sources = fs.sources()
	return l.config, nil
}

// document parses one file; its errors are reported.
func (l *loader) document(path string, data []byte, keys []key[file]) (f file, ok bool) {
	root, line, problem := parseDocument(data)
	if problem != "" {
		l.errs = append(l.errs, Error{File: path, Line: line, Message: problem})
		return f, false
	}
	f.Config = l.config
	v := rootValue(root, path, &l.errs)
	decode(v, keys, &f)
	if f.entries == nil && root.Kind == yaml.MappingNode {
		v.failAt(1, `the key "entries" is missing: write "entries: {}" for none`)
	}
	return f, true
}

func (l *loader) main(path string, data []byte) {
	f, ok := l.document(path, data, fileKeys)
	if !ok {
		return
	}
	if f.defaults != nil {
		decode(*f.defaults, entryKeys, &l.defaults)
	}
	if f.entries != nil {
		l.entries(*f.entries)
	}
	if f.include != nil {
		l.include(path, *f.include)
	}
}

// include reads the files that the patterns match, each once.
func (l *loader) include(main string, v value) {
	seen := map[string]bool{main: true}
	v.list(func(v value) {
		var text string
		if !v.text(&text) {
			return
		}
		if text == "" {
			v.fail("must not be empty")
			return
		}
		paths, err := l.files.match(l.base, text)
		if err != nil {
			v.fail("%v", err)
			return
		}
		for _, path := range paths {
			if seen[path] {
				continue
			}
			seen[path] = true
			data, err := l.files.read(path)
			if err != nil {
				v.fail("%s: %v", path, err)
				continue
			}
			if f, ok := l.document(path, data, includedKeys); ok && f.entries != nil {
				l.entries(*f.entries)
			}
		}
	})
}

func (l *loader) entries(v value) {
	v.each(func(name string, v value) {
		if !nameSyntax.MatchString(name) {
			v.fail("%q is not a name: %s", name, nameRule)
			return
		}
		d := l.defaults.clone()
		decode(v, entryKeys, &d)
		if v.node.Kind != yaml.MappingNode {
			return
		}
		e := d.finish(name, v)
		if d.EnvFile != "" {
			e.EnvFileVars = l.envFile(d.EnvFile, d.envFileAt)
		}
		if before := l.given[name]; before != nil {
			v.fail("already given at %s:%d", before.File, before.Line)
			return
		}
		l.given[name] = e
		l.config.Entries = append(l.config.Entries, e)
	})
}

// envFile reads an env file once, however many entries name it.
func (l *loader) envFile(path string, v value) []KV {
	if vars, ok := l.envFiles[path]; ok {
		return vars
	}
	data, err := l.files.read(path)
	if err != nil {
		v.fail("%s: %v", path, err)
		l.envFiles[path] = nil
		return nil
	}
	vars, err := ParseEnvFile(path, data)
	if errs, ok := err.(Errors); ok {
		l.errs = append(l.errs, errs...)
	}
	l.envFiles[path] = vars
	return vars
}

// readListen reads one address, a list of them, or "none".
func readListen(v value, c *Config) {
	var list []string
	one := func(v value) {
		text, ok := v.scalar("an address: write HOST:PORT (127.0.0.1:8001)")
		if !ok {
			return
		}
		if problem := checkAddress(text); problem != "" {
			v.fail("%s %s", v.describe(), problem)
			return
		}
		if slices.Contains(list, text) {
			v.fail("%s is given twice", v.describe())
			return
		}
		list = append(list, text)
	}
	switch {
	case v.node.Kind == yaml.SequenceNode:
		v.list(one)
	case v.node.Kind == yaml.ScalarNode && v.node.Value == "none":
	default:
		one(v)
	}
	c.HTTP.Listen = list
}

var (
	portText = regexp.MustCompile(`^(0|[1-9][0-9]{0,4})$`)
	hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$`)
)

// checkAddress returns what is wrong with an address to listen on, or "".
func checkAddress(text string) string {
	const want = `is not an address: write HOST:PORT (127.0.0.1:8001, "[::1]:8001"), or "none" for no TCP at all`
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return want
	}
	if n, _ := strconv.Atoi(port); !portText.MatchString(port) || n > 65535 {
		return "is not an address: the port must be a number from 0 to 65535"
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil && !isHostName(host) {
		return want
	}
	return ""
}

// isHostName says whether s looks like a host's name. One of digits and dots
// alone is an address gone wrong.
func isHostName(s string) bool {
	return len(s) <= 253 && hostName.MatchString(s) && strings.Trim(s, "0123456789.") != ""
}

func readHosts(v value, c *Config) {
	var hosts []string
	if !v.texts(&hosts) {
		return
	}
	for i, h := range hosts {
		if _, err := netip.ParseAddr(h); err != nil && !isHostName(h) {
			v.fail("%q is not the name of a host, without a port", h)
		}
		hosts[i] = strings.ToLower(h)
	}
	c.HTTP.Hosts = hosts
}

// readAccounts reads a list of users or groups: names or numbers.
func readAccounts(v value, to *[]string) {
	list := make([]string, 0, len(v.node.Content))
	v.list(func(v value) {
		name, ok := v.scalar("a name or a number")
		switch {
		case !ok:
		case v.node.Tag == "!!int" && !decimal.MatchString(name), v.node.Tag != "!!int" && v.node.Tag != "!!str",
			name == "", strings.HasPrefix(name, "-"), strings.ContainsAny(name, " \t\n:"):
			v.fail("%s is not a name or a number", v.describe())
		default:
			list = append(list, name)
		}
	})
	*to = list
}

// Load reads the configuration at path, what it includes and its env files.
// The error is Errors.
func Load(path string, o Options) (*Config, error) {
	full, err := filepath.Abs(path)
	if err != nil {
		return nil, Errors{{File: path, Message: fmt.Sprintf("cannot tell the absolute path: %v", err)}}
	}
	return load(full, &diskFiles{requireOwner: o.RequireOwner})
}

// Parse does as Load from the sources alone, as Config.Sources recorded them,
// and touches no file system: what is not among the sources does not exist.
// path is absolute, or as the sources have it. The error is Errors.
func Parse(path string, sources []Source) (*Config, error) {
	return load(filepath.Clean(path), &memoryFiles{all: sources})
}
