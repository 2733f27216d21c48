package spawn

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// origLimit is the RLIMIT_NOFILE that this process was started with. The Go
// runtime raises the soft limit of every program at its start to one below the hard
// one; a child should get what the user set, since a
// program that uses select(2) or closes all possible descriptors needs it low.
type origLimit struct {
	raised bool
	soft   uint64
	hard   uint64
	seen   time.Duration // when our own was last seen to be what Go made of it; guarded by Pool.mu
}

// oursFor is how long that is taken for granted by a start that is waited for.
const oursFor = time.Second

// look is ours, and asks once a second, if there is anything to restore. p.mu is held.
func (o *origLimit) look(now time.Duration) bool {
	if !o.raised {
		return false
	}
	if o.seen == 0 || now-o.seen >= oursFor {
		o.seen = 0
		if o.ours() {
			o.seen = now
		}
	}
	return o.seen != 0
}

// ours reports whether our own limit is what Go made of it.
func (o *origLimit) ours() bool {
	var now unix.Rlimit
	err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &now)
	return err == nil && now.Cur == o.hard-1 && now.Max == o.hard
}

// restore reports whether a child's limit has to be set back, and to what. It
// has not if something changed our own since: then children inherit that. looked is what
// look returned, where that was asked.
func (o *origLimit) restore(l *unix.Rlimit, looked bool) bool {
	if !o.raised || !looked && !o.ours() {
		return false
	}
	*l = unix.Rlimit{Cur: o.soft, Max: o.hard}
	return true
}

// originalLimit finds out what package syscall alone knows, and gives back to the
// children that it starts: it starts one, a program of a few bytes that ends
// at once, and looks at the limit of the zombie.
var originalLimit = sync.OnceValues(func() (origLimit, error) {
	var l unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &l); err != nil {
		return origLimit{}, fmt.Errorf("get RLIMIT_NOFILE: %w", err)
	}
	if l.Cur != l.Max-1 {
		return origLimit{}, nil
	}
	pid, pidfd, err := startTiny()
	if err != nil {
		return origLimit{}, fmt.Errorf("start a program to see its RLIMIT_NOFILE: %w", err)
	}
	defer unix.Close(pidfd)
	var child unix.Rlimit
	limitErr := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &child) // the pid is ours until the wait
	if _, errno := waitDying(pidfd); errno != 0 {
		return origLimit{}, fmt.Errorf("wait for it: %w", errno)
	}
	if limitErr != nil {
		return origLimit{}, fmt.Errorf("get its RLIMIT_NOFILE: %w", limitErr)
	}
	return origLimit{raised: child.Cur != l.Cur, soft: child.Cur, hard: l.Max}, nil
})

// startTiny starts, by the standard library, a program of a few bytes.
func startTiny() (pid, pidfd int, err error) {
	code := exitCode(runtime.GOARCH)
	if code == nil {
		return 0, -1, errors.New("none for " + runtime.GOARCH)
	}
	w, err := unix.MemfdCreate("spawn", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if err == unix.EINVAL { // MFD_EXEC is of Linux 6.3
		w, err = unix.MemfdCreate("spawn", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return 0, -1, fmt.Errorf("create memfd: %w", err)
	}
	_, err = unix.Write(w, staticELF(runtime.GOARCH, code))
	if err != nil {
		unix.Close(w)
		return 0, -1, fmt.Errorf("write memfd: %w", err)
	}
	// What is open for writing anywhere can not be executed.
	r, err := unix.Open("/proc/self/fd/"+strconv.Itoa(w), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	unix.Close(w)
	if err != nil {
		return 0, -1, fmt.Errorf("open memfd: %w", err)
	}
	defer unix.Close(r)
	pidfd = -1
	attr := &syscall.ProcAttr{Sys: &syscall.SysProcAttr{PidFD: &pidfd}}
	pid, err = syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(r), []string{"spawn"}, attr)
	if err != nil {
		return 0, -1, err
	}
	if pidfd < 0 {
		return 0, -1, errors.New("no pidfd")
	}
	return pid, pidfd, nil
}

// exitCode is machine code that ends a process with code 0, nil for an unknown
// architecture.
func exitCode(arch string) []byte {
	switch arch {
	case "amd64":
		return []byte{
			0xb8, 0xe7, 0, 0, 0, // mov eax, 231 (exit_group)
			0x31, 0xff, // xor edi, edi
			0x0f, 0x05, // syscall
		}
	case "arm64":
		return []byte{
			0xc8, 0x0b, 0x80, 0xd2, // mov x8, 94 (exit_group)
			0x00, 0x00, 0x80, 0xd2, // mov x0, 0
			0x01, 0x00, 0x00, 0xd4, // svc 0
		}
	}
	return nil
}

// staticELF returns a static program for amd64 or arm64 that consists of code.
func staticELF(arch string, code []byte) []byte {
	machine := uint16(elf.EM_X86_64)
	if arch == "arm64" {
		machine = uint16(elf.EM_AARCH64)
	}
	const header, base = 64 + 56, 0x400000
	size := uint64(header + len(code))
	le := binary.LittleEndian
	b := append(make([]byte, 0, size), "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	b = le.AppendUint16(b, 2) // ET_EXEC
	b = le.AppendUint16(b, machine)
	b = le.AppendUint32(b, 1)                         // version
	b = le.AppendUint64(b, base+header)               // entry
	b = le.AppendUint64(b, 64)                        // program headers at
	b = le.AppendUint64(b, 0)                         // section headers: none
	b = le.AppendUint32(b, 0)                         // flags
	for _, v := range []uint16{64, 56, 1, 64, 0, 0} { // sizes and numbers of headers
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1)                                        // PT_LOAD
	b = le.AppendUint32(b, 5)                                        // readable, executable
	for _, v := range []uint64{0, base, base, size, size, 0x10000} { // offset, addresses, sizes, alignment
		b = le.AppendUint64(b, v)
	}
	return append(b, code...)
}
