package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"

	"gopkg.in/yaml.v3"
)

// Load reads the configuration at path, what it includes and its env files.
// The error is Errors.
func Load(path string, o Options) (*Config, error) {
	full, err := filepath.Abs(path)
	if err != nil {
		return nil, Errors{{File: path, Message: fmt.Sprintf("cannot tell the absolute path: %v", err)}}
	}
	return load(full, &diskFiles{requireOwner: o.RequireOwner}, newHost())
}

// Parse does as Load from the sources alone, as Config.Sources recorded them,
// and touches no file system: what is not among the sources does not exist.
// path is absolute, or as the sources have it. What this process may ask of the
// host was checked when they were read, and is not again. The error is Errors.
func Parse(path string, sources []Source) (*Config, error) {
	return load(filepath.Clean(path), &memoryFiles{all: sources}, nil)
}

// loader reads a configuration from its files.
type loader struct {
	files    files
	errs     Errors
	config   *Config
	base     string // directory of the main file
	defaults draft
	given    map[string]*Entry
	sockets  map[string]*Entry // by address, who listens there
	envFiles map[string][]KV
	host     *host
	database *accounts // nil: not read yet
}

// load reads the main file at an absolute path and all that it names.
func load(path string, fs files, h *host) (*Config, error) {
	l := &loader{
		files: fs, host: h, base: filepath.Dir(path),
		given: map[string]*Entry{}, sockets: map[string]*Entry{}, envFiles: map[string][]KV{},
	}
	l.config = &Config{
		Path:          path,
		HTTP:          HTTP{Listen: []string{defaultListen}, Hosts: []string{}},
		ProcConnector: ProcConnector{Enabled: true, Events: EventsAll, Buffer: defaultBuffer},
	}
	l.defaults = newDraft(l.base)
	l.defaults.host = h
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
	root := parseDocument(data, func(line int, problem string) {
		l.errs = append(l.errs, Error{File: path, Line: line, Message: problem})
	})
	if root == nil {
		return f, false
	}
	f.Config = l.config
	v := rootValue(root, path, &l.errs)
	meant := decode(v, keys, &f)
	if f.entries == nil && root.Kind == yaml.MappingNode && !slices.Contains(meant, "entries") {
		v.failAt(1, `the key "entries" is missing: write "entries: {}" for none`)
	}
	return f, true
}

func (l *loader) main(path string, data []byte) {
	f, ok := l.document(path, data, fileKeys)
	if !ok {
		return
	}
	l.config.Control = l.control(f.users, f.groups)
	if f.defaults != nil {
		l.defaults.meant = decode(*f.defaults, entryKeys, &l.defaults)
	}
	if f.entries != nil {
		l.entries(*f.entries)
	}
	if f.include != nil {
		l.include(path, *f.include)
	}
}

// include reads the files that the patterns match, each once. A pattern may match the
// main file too, which is passed over.
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
		if !hasWildcard(text) && paths[0] == main {
			v.fail("%q is this file itself", text)
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
		d.meant = slices.Concat(d.meant, decode(v, entryKeys, &d))
		if v.node.Kind != yaml.MappingNode {
			return
		}
		e := d.finish(name, v)
		if d.EnvFile != "" {
			e.EnvFileVars = l.envFile(d.EnvFile, d.envFileAt)
		}
		e.Identity = l.identity(&d.id)
		if before := l.given[name]; before != nil {
			v.fail("already given at %s:%d", before.File, before.Line)
			return
		}
		l.given[name] = e
		l.socketAddresses(e, d.socketsAt)
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
