//go:build linux && !amd64 && !arm64

package spawn

func haveClone3() bool { return false }

// cloneSyscall is never called here: see Pool.fork.
func cloneSyscall(*cloneArgs, *step, uintptr, *result) uintptr {
	panic("spawn: no clone3 on this architecture")
}
