// Package job is what internal/vmtest tells the guest to do, and what comes
// back: types only, for the two programs that talk through an initramfs and a
// serial port.
package job

// Path is where the guest finds its Job, as JSON.
const Path = "/job.json"

// Target is the unit that the guest has systemd reach, and UnderSystemd the
// argument that makes of the guest what runs the tests there.
const (
	Target       = "guest.target"
	UnderSystemd = "run-tests-under-systemd"
)

// A guest writes the events of go test's JSON stream, and two of its own.
const (
	// Ended says that a Package's binary has ended, and in Output how: Pass or
	// Fail. What test2json says of that is about a test when one has panicked.
	Ended = "guest-ended"
	// Done is the last of all.
	Done = "guest-done"
)

// How a binary ended.
const (
	Pass = "pass"
	Fail = "fail"
)

// A Job is what one guest does, from boot to power-off.
type Job struct {
	Modules []string // paths of kernel modules, in the order of loading
	Env     []string // KEY=VALUE, of every test binary
	Path    string   // PATH of every test binary
	Tests   []Test   // run one after the other
	Systemd []Test   // run after those, when systemd is PID 1
}

// A Test is one test binary.
type Test struct {
	Package string   // as it is to be named in the events
	Dir     string   // working directory
	Args    []string // the binary and its arguments
	Env     []string // besides the Job's
}
