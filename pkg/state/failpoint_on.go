//go:build failpoint

package state

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// FailpointEnviron names the variable that says at which step this process is to
// be killed, NAME or NAME=N for the Nth time that it comes there.
const FailpointEnviron = "SENTRYD_FAILPOINT"

var failpoint struct {
	name string
	left atomic.Int64
}

func init() {
	name, count, counted := strings.Cut(os.Getenv(FailpointEnviron), "=")
	failpoint.name = name
	failpoint.left.Store(1)
	if n, err := strconv.ParseInt(count, 10, 64); counted && err == nil {
		failpoint.left.Store(n)
	}
	os.Unsetenv(FailpointEnviron) // children and the next image have none
}

// Failpoint ends this process by SIGKILL if it was asked to end at that step.
func Failpoint(name string) {
	if name != failpoint.name || failpoint.left.Add(-1) != 0 {
		return
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		panic(err)
	}
	_ = unix.PidfdSendSignal(self, unix.SIGKILL, nil, 0) // it is us: it works
	select {}
}
