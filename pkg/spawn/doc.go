// Package spawn starts child processes, signals them and reports each exit
// exactly once.
package spawn
