package config

import (
	"regexp"
	"sync"
)

// form is a regular expression that is compiled when it is first used. All of them
// at each start took about a millisecond of each command, and of the time in which a
// re-exec answers nobody.
type form struct{ compiled func() *regexp.Regexp }

func syntax(expr string) form {
	return form{sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })}
}

func (p form) MatchString(s string) bool            { return p.compiled().MatchString(s) }
func (p form) FindStringSubmatch(s string) []string { return p.compiled().FindStringSubmatch(s) }
