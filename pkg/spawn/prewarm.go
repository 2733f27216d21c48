package spawn

import (
	"runtime"
	"sync"
)

// Prewarm makes the Go runtime create n threads now, and returns when they
// exist. The runtime keeps idle threads for ever and aborts the whole process
// when it needs a new one and clone(2) fails: after Prewarm a fork bomb that
// uses up RLIMIT_NPROC or pids.max does not end the daemon. About 24 are
// enough for a Pool, an HTTP server and the garbage collector.
func Prewarm(n int) {
	var there, gone sync.WaitGroup
	there.Add(n)
	gone.Add(n)
	for range n {
		go func() {
			defer gone.Done()
			// A locked goroutine that waits keeps its thread, so the next one needs another.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			there.Done()
			there.Wait()
		}()
	}
	gone.Wait()
}
