// Package lint holds the rules of this repository that no compiler knows.
//
// It is a package of tests: `go test ./lint`, which `make check` runs. It reads
// the sources with go/parser and the import graph with go list, and knows
// nothing of what the code does. Each rule stands in a table with the reason
// for it and what to do instead; each has a sample that it must catch and one
// that it must let pass. An exception is a line in the same table, with its
// own reason.
package lint
