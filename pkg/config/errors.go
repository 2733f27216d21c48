package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxErrors bounds how many errors are reported: a file of four MiB that is no
// configuration at all must not produce a log of a hundred.
const maxErrors = 500

// Error is one thing that is wrong with a configuration.
type Error struct {
	File    string // path of the file
	Line    int    // counted from 1; 0 when the error is about the file as a whole
	Message string // one line
}

// Error returns "FILE:LINE: message", or "FILE: message" without a line.
func (e Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Message
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Message)
}

// Errors is everything that is wrong with a configuration, sorted by file and
// line. It is never empty when it is returned as an error.
type Errors []Error

// Error returns one line for each error.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// settle sorts the errors, drops repetitions (a default that is wrong is wrong
// for every entry) and bounds their number.
func (e Errors) settle() Errors {
	slices.SortStableFunc(e, func(a, b Error) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	seen := make(map[Error]bool, len(e))
	e = slices.DeleteFunc(e, func(x Error) bool {
		again := seen[x]
		seen[x] = true
		return again
	})
	if len(e) > maxErrors {
		last := e[maxErrors-1]
		last.Message = fmt.Sprintf("and %d more errors", len(e)-maxErrors+1)
		e = append(e[:maxErrors-1], last)
	}
	return e
}
