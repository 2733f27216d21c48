// Package integration tests the built binary as its users have it: over its
// commands, HTTP, signals and files, with real programs. It knows no package of
// sentryd, so that it breaks when what people rely on breaks, and only then.
//
// SENTRYD_BIN names the binary to test; without it the tests build one.
// SENTRYD_SOAK=1 runs the long forms: 100,000 exits, 1,000 re-execs, 20,000
// SIGHUPs.
package integration
