// Package config turns YAML files into a validated [Config].
//
// It knows the syntax of the files, what each key means on its own, which
// combinations are impossible, and how two configurations differ. It does not
// know the daemon: nothing here starts a process, resolves a user or opens a
// socket, and the package imports nothing else of sentryd.
//
// # Strictness
//
// A configuration is right or it is refused. Unknown and repeated keys, wrong
// types and impossible values are all reported at once, each as one line
// "FILE:LINE: message", sorted by file and line. The files are decoded by hand
// from YAML nodes, because the YAML library on its own reads 017 as 15, 1_000
// as 1000 and 2.0 as 2, takes an empty file and ignores a second document.
// Anchors and aliases may be used, within bounds; tags (!!binary) and merge
// keys (<<) are refused.
//
// # Two ways in
//
// [Load] reads the files. [Parse] gives the same result from the sources that
// an earlier Load recorded in [Config.Sources] and touches no file system, so
// that the configuration which was checked is the one that is used.
//
// A *Config and all it holds is not changed after Load or Parse have returned
// it, and may be shared between goroutines.
package config
