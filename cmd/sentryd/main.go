// Command sentryd keeps programs running on a Linux host, and talks to the
// daemon that does. It holds commands and wiring only: what happens to a
// program is decided in pkg/supervisor.
package main

import (
	"os"

	"github.com/sentryd/sentryd/pkg/state"
)

// version is set by the linker.
var version = "devel"

func main() {
	c := &cli{stdout: os.Stdout, stderr: os.Stderr, version: version}
	if os.Getenv(state.Environ) != "" {
		// A daemon's new image: the old one left SIGHUP ignored, and each
		// moment without a handler is one in which a signal can end us.
		c.signals = notifySignals()
	}
	os.Exit(c.run(os.Args[1:]))
}
