package spawn

import "golang.org/x/sys/unix"

// The kernel doubles a full table of descriptors. Where threads share it, it then
// waits until each of them has seen the new one (synchronize_rcu), 10 to 40 ms in
// which every open of this process stands still: seven times on the way to 1,000
// children, a fifth of the time that their start takes. So room is made at once,
// and before it is needed.
const (
	// firstRoom is for some 800 children, with as many to come; it takes the kernel 64 KiB.
	firstRoom = 8192
	// childDescriptors is what a child takes: its pidfd, two of its cgroup, what its
	// successor writes to, and the pipe of its output, which is the caller's.
	childDescriptors = 5
)

// expect has more room made once half of it may be taken. It waits for nothing.
// p.mu is held, and p is not closed.
func (p *Pool) expect(children int) {
	n := childDescriptors * children
	if 2*n <= p.room {
		return
	}
	p.room = max(firstRoom, 4*n)
	room := p.room
	p.done.Go(func() { p.makeRoom(room) })
}

// maxDescriptors is how many we may have open, our RLIMIT_NOFILE. That can be asked for
// always, getrlimit(2).
func maxDescriptors() uint64 {
	var limit unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	return limit.Cur
}

// makeRoom has the table of descriptors be one of n or, if there may be fewer, of
// as many as there may be. What cannot be is no error: the table grows without it.
func (p *Pool) makeRoom(n int) {
	n = int(min(uint64(n), maxDescriptors()))
	// A number in that range, for a moment, is what makes the table grow.
	if last, err := unix.FcntlInt(uintptr(p.wakefd), unix.F_DUPFD_CLOEXEC, n-1); err == nil {
		unix.Close(last)
	}
}
