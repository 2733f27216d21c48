// Package job is what internal/vmtest tells the guest to do, and what comes
// back: types only, for the two programs that talk through an initramfs and a
// serial port.
package job

// Path is where the guest finds its Job, as JSON.
const Path = "/job.json"

// Done is the Action of the last line that a guest writes. Every other line is
// an event of go test's JSON stream.
const Done = "guest-done"

// A Job is what one guest does, from boot to power-off.
type Job struct {
	Modules []string // paths of kernel modules, in the order of loading
	Env     []string // KEY=VALUE, of every test binary
	Path    string   // PATH of every test binary
	Tests   []Test   // run one after the other
}

// A Test is one test binary.
type Test struct {
	Package string   // as it is to be named in the events
	Dir     string   // working directory
	Args    []string // the binary and its arguments
}
