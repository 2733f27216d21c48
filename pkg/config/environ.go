package config

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The variables that sentryd sets for every child. The first two are the same
// for all of an entry, the others change with each start.
const (
	nameVariable        = "SENTRYD_NAME"
	entryVariable       = "SENTRYD_ENTRY"
	slotVariable        = "SENTRYD_SLOT"
	incarnationVariable = "SENTRYD_INCARNATION"
)

// A Template is an entry made ready for starting: all of its environment and
// of $(VAR) that is the same for every slot and incarnation is worked out once,
// so that a start costs little more than a copy. It is not changed after it
// was made and may be used by several goroutines.
type Template struct {
	argv      []bound  // Command
	constant  []string // argv, when no part of it changes with a start
	directory bound
	shown     [2]bound // program and directory for people, see Shown
	base      string
	env       []string // NAME=VALUE of what does not change
	varying   []bound  // of `environment`: what does
	steady    bool     // see Steady
	broken    error    // a start is bound to fail with it
}

// bound is a pattern in which nothing but the slot and the incarnation is open.
type bound struct {
	name string // of the variable, for `environment`
	pattern
}

// Start is what one incarnation is started with. Its slices may be shared with
// other starts of the entry and must not be modified.
type Start struct {
	// Program is the file to execute: Argv[0] as it stands when it holds no
	// slash, to be looked up in the PATH of Env; else an absolute path.
	Program   string
	Argv      []string
	Env       []string // NAME=VALUE, each name once, but for
	Last      string   // one more, SENTRYD_INCARNATION, in which the next start of the slot differs
	Directory string   // absolute; "" for the daemon's own
}

// Template makes the entry ready for starting. daemon is the NAME of the
// daemon, inherited its own environment as os.Environ returns it (left out for
// an entry with clean_env).
//
// The order is inherited < env_file < environment < HOME, USER, LOGNAME and
// SHELL of the entry's user < SENTRYD_*; the values of
// environment, and command, args and directory, refer with $(VAR) to all of
// these but environment itself.
func (e *Entry) Template(daemon string, inherited []string) *Template {
	var known variableSet
	if !e.CleanEnv {
		for _, s := range inherited {
			// getenv(3) finds the first of two; so does the child.
			if name, v, ok := strings.Cut(s, "="); ok && name != "" && !known.has(name) {
				known.set(name, v)
			}
		}
	}
	account := e.accountVariables()
	if e.Identity != nil && int(e.Identity.UID) != os.Geteuid() {
		for _, name := range [...]string{"HOME", "USER", "LOGNAME", "SHELL"} {
			known.remove(name) // they are those of another user
		}
	}
	for _, kv := range e.EnvFileVars {
		known.set(kv.Name, kv.Value)
	}
	for _, kv := range account {
		known.set(kv.Name, kv.Value)
	}
	known.set(nameVariable, daemon)
	known.set(entryVariable, e.Name)
	known.remove(slotVariable)
	known.remove(incarnationVariable)

	t := &Template{base: e.base}
	bind := func(key, name, text string) bound {
		p, err := parsePattern(text)
		if err != nil { // only in an Entry that was not read from a file
			t.broken = fmt.Errorf("expand %s: %w", key, err)
			return bound{pattern: pattern{text: []string{text}}}
		}
		p = p.bind(known.get)
		for _, n := range p.names {
			if n != slotVariable && n != incarnationVariable && t.broken == nil {
				t.broken = &UndefinedError{Key: key, Name: n}
			}
		}
		return bound{name, p}
	}
	constant := true
	for i, word := range e.Command {
		key := "command"
		if i > 0 {
			key = fmt.Sprintf("args[%d]", i-1)
		}
		b := bind(key, "", word)
		constant = constant && len(b.names) == 0
		t.argv = append(t.argv, b)
	}
	if constant {
		t.constant = t.words(nil)
	}
	t.directory = bind("directory", "", e.Directory)
	t.shown = [2]bound{{pattern: e.harmless(daemon, e.Command[0])}, {pattern: e.harmless(daemon, e.Directory)}}

	final := known.clone()
	for _, name := range slices.Sorted(maps.Keys(e.Environment)) {
		switch name {
		case nameVariable, entryVariable, slotVariable, incarnationVariable:
			continue // sentryd's own win
		}
		if slices.ContainsFunc(account, func(kv KV) bool { return kv.Name == name }) {
			continue // and so does the user database
		}
		b := bind("environment."+name, name, e.Environment[name])
		if text, ok := b.constant(); ok {
			final.set(name, text)
			continue
		}
		final.remove(name)
		t.varying = append(t.varying, b)
	}
	t.env = final.environ()
	t.steady = !slices.ContainsFunc(slices.Concat(t.argv, []bound{t.directory}, t.varying), func(b bound) bool {
		return slices.Contains(b.names, incarnationVariable)
	})
	return t
}

// accountVariables are what the user database says of the entry's user, as
// login(1) passes it on. Of a number that is not in it nothing is known.
func (e *Entry) accountVariables() []KV {
	if e.Identity == nil || e.Identity.Account == nil {
		return nil
	}
	a := e.Identity.Account
	return []KV{{"HOME", a.Home}, {"USER", a.Name}, {"LOGNAME", a.Name}, {"SHELL", a.Shell}}
}

// Start returns what an incarnation is started with. An undefined name is an
// *UndefinedError.
func (t *Template) Start(slot int, incarnation uint64) (Start, error) {
	if t.broken != nil {
		return Start{}, t.broken
	}
	own := ownVariables(slot, incarnation)
	s := Start{Argv: t.constant}
	if s.Argv == nil {
		s.Argv = t.words(&own)
	}
	if s.Argv[0] == "" {
		return Start{}, fmt.Errorf("expand command: names no program")
	}
	s.Program, s.Directory = t.place(s.Argv[0], t.directory.fill(&own))
	s.Env = make([]string, len(t.env), len(t.env)+len(t.varying)+1)
	copy(s.Env, t.env)
	for _, b := range t.varying {
		s.Env = append(s.Env, b.name+"="+b.fill(&own))
	}
	s.Env = append(s.Env, own[0].Name+"="+own[0].Value)
	s.Last = Incarnation(incarnation)
	return s, nil
}

// Steady reports whether two incarnations of a slot are started with the same, but for
// Last.
func (t *Template) Steady() bool { return t.steady }

// Incarnation is the Last of an incarnation's Start.
func Incarnation(n uint64) string { return incarnationVariable + "=" + strconv.FormatUint(n, 10) }

// place makes the program and the directory absolute.
func (t *Template) place(program, directory string) (string, string) {
	if directory != "" {
		directory = absolute(t.base, directory)
	}
	switch {
	case filepath.IsAbs(program) || !strings.Contains(program, "/"):
	case directory != "":
		program = filepath.Join(directory, program)
	default:
		program = filepath.Join(t.base, program)
	}
	return program, directory
}

// Shown returns a path that the start of an incarnation failed on as it may be
// shown: with $(VAR) where the program or the directory were configured so, as
// the value of a variable can be a secret. sentryd's own variables are none.
func (t *Template) Shown(slot int, incarnation uint64, path string) string {
	s, err := t.Start(slot, incarnation)
	if err != nil {
		return path
	}
	own := ownVariables(slot, incarnation)
	program, directory := t.place(t.shown[0].fill(&own), t.shown[1].fill(&own))
	switch {
	case path == s.Program:
		return program
	case path == s.Directory:
		return directory
	case !strings.Contains(s.Program, "/") && strings.HasSuffix(path, "/"+s.Program): // found in PATH
		return strings.TrimSuffix(path, s.Program) + program
	}
	return path
}

// harmless takes a string apart and leaves every reference as it is written but
// those to sentryd's own variables.
func (e *Entry) harmless(daemon, text string) pattern {
	p, err := parsePattern(text)
	if err != nil {
		return pattern{text: []string{text}}
	}
	return p.bind(func(name string) (string, bool) {
		switch name {
		case nameVariable:
			return daemon, true
		case entryVariable:
			return e.Name, true
		case slotVariable, incarnationVariable:
			return "", false
		}
		return "$(" + name + ")", true
	})
}

// ownVariables are those that differ from start to start: that of the slot, and Start.Last.
func ownVariables(slot int, incarnation uint64) [2]KV {
	return [2]KV{
		{slotVariable, strconv.Itoa(slot)},
		{incarnationVariable, strconv.FormatUint(incarnation, 10)},
	}
}

// words fills in all of the command.
func (t *Template) words(own *[2]KV) []string {
	words := make([]string, len(t.argv))
	for i, b := range t.argv {
		words[i] = b.fill(own)
	}
	return words
}

// fill returns the text with the slot and the incarnation filled in.
func (b bound) fill(own *[2]KV) string {
	if len(b.names) == 0 {
		return b.text[0]
	}
	var s strings.Builder
	s.WriteString(b.text[0])
	for i, name := range b.names {
		for _, kv := range own {
			if kv.Name == name {
				s.WriteString(kv.Value)
			}
		}
		s.WriteString(b.text[i+1])
	}
	return s.String()
}

// variableSet is an environment: each name once, in the order of first setting.
type variableSet struct {
	list []KV
	at   map[string]int
}

func (s *variableSet) has(name string) bool {
	_, ok := s.at[name]
	return ok
}

func (s *variableSet) get(name string) (string, bool) {
	i, ok := s.at[name]
	if !ok {
		return "", false
	}
	return s.list[i].Value, true
}

func (s *variableSet) set(name, v string) {
	if i, ok := s.at[name]; ok {
		s.list[i].Value = v
		return
	}
	if s.at == nil {
		s.at = make(map[string]int)
	}
	s.at[name] = len(s.list)
	s.list = append(s.list, KV{name, v})
}

// remove leaves a gap, an entry without a name, so that no index changes.
func (s *variableSet) remove(name string) {
	if i, ok := s.at[name]; ok {
		s.list[i] = KV{}
		delete(s.at, name)
	}
}

func (s *variableSet) clone() *variableSet {
	return &variableSet{slices.Clone(s.list), maps.Clone(s.at)}
}

func (s *variableSet) environ() []string {
	env := make([]string, 0, len(s.at))
	for _, kv := range s.list {
		if kv.Name != "" {
			env = append(env, kv.Name+"="+kv.Value)
		}
	}
	return env
}
