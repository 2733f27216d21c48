//go:build linux && !amd64 && !arm64

package spawn

func haveClone3() bool { return false }

// Neither is ever called here: see Pool.fork.
func cloneSyscall(*cloneArgs, *step, uintptr, *result) uintptr {
	panic("spawn: no clone3 on this architecture")
}

func rawCloneSyscall(*cloneArgs, *step, uintptr, *result) uintptr {
	panic("spawn: no clone3 on this architecture")
}
