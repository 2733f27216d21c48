package config

import (
	"fmt"
	"strings"
)

// variableName is what may stand in $(VAR): the names of POSIX, which every
// shell can also read. environmentName is what may be set; dots and dashes are
// used by a few programs (discovery.type).
var (
	variableName    = syntax(`^[A-Za-z_][A-Za-z0-9_]*$`)
	environmentName = syntax(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
)

// A pattern is a string with $(VAR) references, taken apart: text[0],
// names[0], text[1], names[1], …, text[len(names)].
type pattern struct {
	text  []string
	names []string
}

// parsePattern takes s apart. $(VAR) is a reference and $$ is a $; any other $
// stands for itself. A bracket that is not closed, or holds no name, is an error.
func parsePattern(s string) (pattern, error) {
	var p pattern
	var text strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i == len(s)-1 {
			text.WriteString(s)
			p.text = append(p.text, text.String())
			return p, nil
		}
		text.WriteString(s[:i])
		switch s[i+1] {
		case '$':
			text.WriteByte('$')
			s = s[i+2:]
		case '(':
			name, rest, closed := strings.Cut(s[i+2:], ")")
			if !closed {
				return pattern{}, fmt.Errorf("$( is not closed: write $(NAME), or $$( for the characters themselves")
			}
			if !variableName.MatchString(name) {
				return pattern{}, fmt.Errorf("$(…) does not hold the name of a variable: write $(NAME), or $$( for the characters themselves")
			}
			p.text = append(p.text, text.String())
			p.names = append(p.names, name)
			text.Reset()
			s = rest
		default:
			text.WriteByte('$')
			s = s[i+1:]
		}
	}
}

// bind replaces the references that known can resolve by their values. The
// values are not expanded again.
func (p pattern) bind(known func(name string) (string, bool)) pattern {
	out := pattern{text: []string{p.text[0]}}
	for i, name := range p.names {
		if v, ok := known(name); ok {
			out.text[len(out.text)-1] += v + p.text[i+1]
			continue
		}
		out.names = append(out.names, name)
		out.text = append(out.text, p.text[i+1])
	}
	return out
}

// constant returns the whole text of a pattern without references.
func (p pattern) constant() (string, bool) {
	if len(p.names) > 0 {
		return "", false
	}
	return p.text[0], true
}

// An UndefinedError says that an entry refers to a variable that is in none of
// the places from which $(VAR) is expanded. It is an error of the start, not
// of the configuration, since the daemon's environment may define it next time.
type UndefinedError struct {
	Key  string // where it stands, e.g. command, args[2] (the third), environment.PATH
	Name string // of the variable
}

// Error names the key and the variable, and no value.
func (e *UndefinedError) Error() string {
	return fmt.Sprintf("expand %s: $(%s) is not defined", e.Key, e.Name)
}
