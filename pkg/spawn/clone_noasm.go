//go:build linux && !amd64 && !arm64

package spawn

func haveClone3() bool { return false }

// vforkSyscall is never called here: see Pool.fork.
func vforkSyscall(*cloneArgs, *step, uintptr, *result) uintptr {
	panic("spawn: no vfork on this architecture")
}
