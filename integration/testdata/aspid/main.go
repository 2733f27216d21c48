// Aspid runs a program as a process of a chosen pid, clone3(2) with set_tid, and waits
// for its end: aspid PID PROGRAM [ARG...]. It says "there" once it is.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	pid, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	path, err := syscall.BytePtrFromString(os.Args[2])
	if err != nil {
		panic(err)
	}
	argv, err := syscall.SlicePtrFromStrings(os.Args[2:])
	if err != nil {
		panic(err)
	}
	envv, err := syscall.SlicePtrFromStrings([]string{"PATH=/usr/bin:/bin"})
	if err != nil {
		panic(err)
	}
	runtime.LockOSThread()
	tid := int32(pid)
	args := struct{ flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64 }{
		exitSignal: uint64(unix.SIGCHLD), setTID: uint64(uintptr(unsafe.Pointer(&tid))), setTIDSize: 1,
	}
	// The child is a copy of this process with this thread alone: from here on it
	// makes nothing but system calls.
	child, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	if child == 0 && errno == 0 {
		syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])))
		syscall.RawSyscall(unix.SYS_EXIT, 127, 0, 0)
	}
	if errno != 0 {
		fmt.Println(errno)
		os.Exit(1)
	}
	fmt.Println("there")
	var status syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != syscall.EINTR {
			return
		}
	}
}
