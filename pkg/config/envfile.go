package config

import (
	"bytes"
	"fmt"
	"strings"
)

// KV is one environment variable.
type KV struct {
	Name, Value string
}

// ParseEnvFile reads the content of an env_file. file is its name for errors,
// none of which repeats any of the content but a variable's name: what such
// files hold is often secret. On error it returns Errors.
//
// The syntax is the common ground of systemd's EnvironmentFile and docker's
// env files:
//
//   - A line is NAME=VALUE, with an optional "export " before it; NAME is
//     letters, digits and _ (dots and dashes too, not first), and no blank
//     stands before the =.
//   - Empty lines and lines that start with # are passed over. A # anywhere
//     else is part of the value.
//   - An unquoted value goes to the end of the line, without the blanks at its
//     two ends; a backslash in it is a backslash.
//   - A value in single quotes is taken as it stands. In double quotes \n, \t,
//     \r, \", \\, \$ and \` mean what they do in C and the shell; any other
//     backslash is a backslash. A quoted value may span lines; nothing but
//     blanks may follow its closing quote.
//   - Nothing is expanded: neither $NAME nor $(NAME).
//   - Where a name is given twice the last one counts.
//   - CRLF ends a line like LF. A byte order mark at the start is passed over.
func ParseEnvFile(file string, data []byte) ([]KV, error) {
	p := envParser{file: file, rest: string(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))), line: 1}
	for p.rest != "" {
		p.statement()
	}
	if len(p.errs) > 0 {
		return nil, p.errs.settle()
	}
	// The last of a name counts, at the place of the first.
	at := make(map[string]int, len(p.vars))
	vars := p.vars[:0]
	for _, kv := range p.vars {
		if i, ok := at[kv.Name]; ok {
			vars[i] = kv
			continue
		}
		at[kv.Name] = len(vars)
		vars = append(vars, kv)
	}
	return vars, nil
}

type envParser struct {
	file string
	rest string
	line int // of the first byte of rest
	vars []KV
	errs Errors
}

func (p *envParser) fail(line int, format string, args ...any) {
	p.errs = append(p.errs, Error{File: p.file, Line: line, Message: fmt.Sprintf(format, args...)})
}

// takeLine consumes the rest of the present line and returns it without its end.
func (p *envParser) takeLine() string {
	line, rest, _ := strings.Cut(p.rest, "\n")
	p.rest = rest
	p.line++
	return strings.TrimSuffix(line, "\r")
}

// statement consumes one line, or several when a quoted value spans them.
func (p *envParser) statement() {
	const blanks = " \t"
	start := p.line
	p.rest = strings.TrimLeft(p.rest, blanks)
	if p.rest == "" {
		return
	}
	if p.rest[0] == '#' || p.rest[0] == '\n' || strings.HasPrefix(p.rest, "\r\n") {
		p.takeLine()
		return
	}
	if after, ok := strings.CutPrefix(p.rest, "export"); ok && after != "" && strings.Contains(blanks, after[:1]) {
		p.rest = strings.TrimLeft(after, blanks)
	}
	end := strings.IndexAny(p.rest, "=\n")
	if end < 0 || p.rest[end] == '\n' {
		p.takeLine()
		p.fail(start, "no = in the line: write NAME=VALUE")
		return
	}
	name := p.rest[:end]
	if !environmentName.MatchString(name) {
		// What stands there may be the continuation of a secret: do not show it.
		p.takeLine()
		p.fail(start, "what stands before the = is not the name of a variable (letters, digits and _)")
		return
	}
	p.rest = strings.TrimLeft(p.rest[end+1:], blanks)
	value := ""
	if p.rest != "" && (p.rest[0] == '\'' || p.rest[0] == '"') {
		quote := p.rest[:1]
		var closed bool
		if value, closed = p.quoted(); !closed {
			p.fail(start, "%s: the quote %s is not closed", name, quote)
			return
		}
		if strings.Trim(p.takeLine(), blanks) != "" {
			p.fail(start, "%s: something follows the closing quote", name)
			return
		}
	} else {
		value = strings.TrimRight(p.takeLine(), blanks)
	}
	if strings.ContainsRune(value, 0) {
		p.fail(start, "%s: must not contain a NUL byte", name)
		return
	}
	p.vars = append(p.vars, KV{name, value})
}

// quoted consumes a value that starts with a quote, up to and with the closing
// one.
func (p *envParser) quoted() (value string, closed bool) {
	quote := p.rest[0]
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		c := p.rest[i]
		switch {
		case c == quote:
			p.line += strings.Count(p.rest[:i], "\n")
			p.rest = p.rest[i+1:]
			return b.String(), true
		case c == '\\' && quote == '"' && i+1 < len(p.rest):
			if to := strings.IndexByte("ntr\"\\$`", p.rest[i+1]); to >= 0 {
				b.WriteByte("\n\t\r\"\\$`"[to])
				i++
				continue
			}
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	p.rest = ""
	return "", false
}
