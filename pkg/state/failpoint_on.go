//go:build failpoint

package state

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// FailpointEnviron names the variable that says at which step this process is to
// be killed, NAME or NAME=N for the Nth time that it comes there.
const FailpointEnviron = "SENTRYD_FAILPOINT"

// step is what the variable says.
type step struct {
	name string
	left atomic.Int64
}

var chosen = sync.OnceValue(func() *step {
	s := new(step)
	name, count, counted := strings.Cut(os.Getenv(FailpointEnviron), "=")
	s.name = name
	s.left.Store(1)
	if n, err := strconv.ParseInt(count, 10, 64); counted && err == nil {
		s.left.Store(n)
	}
	if !strings.HasPrefix(s.name, nextImage) {
		os.Unsetenv(FailpointEnviron) // the next image has none
	}
	return s
})

// nextImage is how the names of steps begin that a re-exec'd image comes to.
const nextImage = "resume"

// Failpoints is Failpoint for a package that must not know this one.
func Failpoints() func(string) { return Failpoint }

// Failpoint ends this process by SIGKILL if it was asked to end at that step.
func Failpoint(name string) {
	s := chosen()
	if name != s.name || s.left.Add(-1) != 0 {
		return
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		panic(err)
	}
	_ = unix.PidfdSendSignal(self, unix.SIGKILL, nil, 0) // it is us: it works
	select {}
}
