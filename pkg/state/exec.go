package state

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Environ names the environment variable that tells a new image the number of
// the descriptor its state is in. [Inherit] removes it.
const Environ = "SENTRYD_STATE_FD"

// lostNofile is the RLIMIT_NOFILE that this process was started with, once
// package syscall has forgotten it. It belongs to the process, as the limit
// does, hence a variable of the package; see restoreNofile.
var lostNofile atomic.Pointer[unix.Rlimit]

// Exec replaces the running program by path, execve(2), keeping the process,
// its children and exactly the descriptors in files and s.Leftovers. It encodes s with files
// in it, seals it, tells the new image where it is, makes SIGHUP, SIGUSR1 and
// SIGUSR2 ignored so that none can end the new image before it asks to be
// notified, and goes. Descriptors 0, 1 and 2 stay as they are.
//
// The caller has checked the files with [CheckFiles], and has stopped starting
// processes: Exec takes syscall.ForkLock, so that no child is forked while descriptors
// are without close-on-exec.
//
// Exec refuses while another thread hangs in the kernel, where execve could not
// end it.
//
// Exec never returns nil. When it returns, the program goes on as before:
// descriptors are close-on-exec again, those signals have their handlers back
// (one that arrived during the attempt is lost),
// and the soft RLIMIT_NOFILE is what it was. One trace is left: package
// syscall forgets the soft limit the program was started with, so children
// that syscall.ForkExec starts after a failed execve inherit the raised one. A
// later Exec hands the right one on all the same.
func Exec(path string, argv, env []string, s *Saved, files []File) error {
	if err := noThreadHangs(); err != nil {
		return fmt.Errorf("exec %s: %w", path, err)
	}
	c := *s
	c.Files = files
	data, err := Encode(&c)
	if err != nil {
		return fmt.Errorf("exec %s: %w", path, err)
	}
	f, err := Seal(data)
	if err != nil {
		return fmt.Errorf("exec %s: %w", path, err)
	}
	defer f.Close()
	fd := int(f.Fd())
	env = append(without(env, Environ), Environ+"="+strconv.Itoa(fd))

	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	fds := append([]int{fd}, s.Leftovers...)
	for _, file := range files {
		fds = append(fds, file.FD)
	}
	for i, fd := range fds {
		if err := setCloexec(fd, false); err != nil {
			for _, done := range fds[:i] {
				setCloexec(done, true) // was open a moment ago
			}
			return fmt.Errorf("exec %s: keep descriptor %d: %w", path, fd, err)
		}
	}
	err = execve(path, argv, env)
	for _, fd := range fds {
		setCloexec(fd, true)
	}
	return fmt.Errorf("exec %s: %w", path, err)
}

// passing are the signals that ask a daemon for something, and by default end
// a program. Go honours that SIGHUP was ignored at its start; for the others the
// runtime has a handler in place again before any code of the program runs.
var passing = [...]unix.Signal{unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2}

// execve ignores what is passing and calls execve, and undoes what that changed
// when it comes back. The signals' actions are set behind the runtime's back,
// and put back as they were: os/signal.Ignore would take them away from every
// channel that was registered for them.
func execve(path string, argv, env []string) (err error) {
	var old [len(passing)]sigaction
	for i, sig := range passing {
		if err := rtSigaction(sig, &sigaction{handler: sigIgn}, &old[i]); err != nil {
			return err
		}
		defer func() {
			if e := rtSigaction(sig, &old[i], nil); e != nil {
				err = fmt.Errorf("restore the handler of %s: %w", unix.SignalName(sig), e)
			}
		}()
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	if lost := lostNofile.Load(); lost != nil {
		// An error leaves the raised limit, with which the new image works too.
		unix.Setrlimit(unix.RLIMIT_NOFILE, lost)
	}
	err = syscall.Exec(path, argv, env)
	restoreNofile(before)
	return err
}

// restoreNofile raises the soft limit again after a failed execve. Go raises
// it at start and remembers the original for children; syscall.Exec sets the
// original and forgets it (1.26). Staying there might leave 1,024 descriptors
// to a daemon that holds more, so the limit goes up again, and lostNofile
// remembers in the place of package syscall.
func restoreNofile(before unix.Rlimit) {
	var after unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &after) != nil || after == before {
		return
	}
	lostNofile.Store(&after)
	unix.Setrlimit(unix.RLIMIT_NOFILE, &before) // up to the hard limit: allowed
}

// CheckFiles refuses a list of descriptors that the next image could not tell apart, or
// would not take for what their names say. With thousands it takes milliseconds, in which
// the caller may do other things.
func CheckFiles(files []File) error {
	names, fds := make(map[string]bool, len(files)), make(map[int]bool, len(files))
	for _, f := range files {
		switch {
		case f.FD < 3:
			return fmt.Errorf("hand over %q: descriptor %d", f.Name, f.FD)
		case names[f.Name], fds[f.FD]:
			return fmt.Errorf("hand over %q: name or descriptor %d given twice", f.Name, f.FD)
		}
		names[f.Name], fds[f.FD] = true, true
	}
	for i, err := range verify(files) {
		if err != nil {
			return fmt.Errorf("hand over %q: %w", files[i].Name, err)
		}
	}
	return nil
}

// without returns a copy of env with no variable of those names.
func without(env []string, names ...string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(names, name)
	})
}

// setCloexec waits for nothing, and is called for thousands of descriptors while nobody
// is answered: Go's scheduler is not told.
func setCloexec(fd int, on bool) error {
	flags := 0
	if on {
		flags = unix.FD_CLOEXEC
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_SETFD, uintptr(flags)); errno != 0 {
		return os.NewSyscallError("fcntl F_SETFD", errno)
	}
	return nil
}

const sigIgn = 1

// sigaction has room for the kernel's struct sigaction, in which the handler
// comes first on every architecture that Go runs Linux on but mips.
type sigaction struct {
	handler uintptr
	_       [7]uintptr // flags, restorer, mask
}

func rtSigaction(sig unix.Signal, act, old *sigaction) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig),
		uintptr(unsafe.Pointer(act)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("rt_sigaction", errno)
	}
	return nil
}
