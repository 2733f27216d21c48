package procevents

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// whats are the kernel's PROC_EVENT_ values of the kinds that have one.
var whats = [Kinds]uint32{
	Fork: 0x00000001, Exec: 0x00000002, UID: 0x00000004, GID: 0x00000040, SID: 0x00000080,
	Ptrace: 0x00000100, Comm: 0x00000200, Coredump: 0x40000000, Exit: 0x80000000,
}

// kindSet has the bit 1<<k for each Kind k in it.
type kindSet uint16

const allKinds kindSet = 1<<Kinds - 1

func (s kindSet) has(k Kind) bool { return s>>k&1 != 0 }

// kindsOf returns the set of what is asked for: everything, if that is nothing.
func kindsOf(kinds []Kind) (kindSet, error) {
	if len(kinds) == 0 {
		return allKinds, nil
	}
	var s kindSet
	for _, k := range kinds {
		if int(k) >= Kinds || whats[k] == 0 {
			return 0, fmt.Errorf("proc connector: events of kind %q cannot be asked for", k)
		}
		s |= 1 << k
	}
	return s, nil
}

// mask returns the kernel's values of a set, all in one, and with them that of
// Comm: an event of that kind is how a Listener proves that it hears. Threads
// are renamed too seldom for that to cost anything.
func (s kindSet) mask() uint32 {
	mask := whats[Comm]
	for k, what := range whats {
		if s.has(Kind(k)) {
			mask |= what
		}
	}
	return mask
}

// filter is what keeps events that nobody asked for away.
type filter uint8

const (
	// noFilter: they are sorted out after they were received.
	noFilter filter = iota
	// connectorFilter: the connector does not queue them for this socket. Its
	// request has 8 bytes. Linux 6.6 and later; earlier ones ignore the request.
	connectorFilter
	// socketFilter: a classic BPF program drops them before they are queued.
	socketFilter
	// anyFilter: one of these two, on a socket of an earlier image.
	anyFilter
)

// filterFor chooses for a kernel, by its release as uname(2) has it.
//
// From some 6.6.y before 6.6.18 and in 6.7.0 to 6.7.5 the connector takes an
// event that it could deliver to nobody, because of a filter of either sort, as
// the sign that nobody listens any more, and falls silent for everybody.
func filterFor(release string) filter {
	switch v := parseRelease(release); {
	case slices.Compare(v[:], []int{6, 6, 0}) < 0:
		return socketFilter
	case v[0] == 6 && v[1] == 6 && v[2] < 18, v[0] == 6 && v[1] == 7 && v[2] < 6:
		return noFilter
	}
	return connectorFilter
}

// parseRelease returns the numbers of a release such as 6.7.3-arch1-1; zero is
// one that is not there.
func parseRelease(release string) (v [3]int) {
	release, _, _ = strings.Cut(release, "-")
	for i, part := range strings.SplitN(release, ".", len(v)) {
		end := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' })
		if end < 0 {
			end = len(part)
		}
		v[i], _ = strconv.Atoi(part[:end])
	}
	return v
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// program returns a classic BPF program that lets the messages of mask pass. It
// knows one form of datagram, a single message of the size that every kernel
// sends, and lets all others pass too, for Decode to judge.
//
// BPF loads words in network order, and the message has the host's: the
// constant is turned around instead.
func program(mask uint32) []unix.SockFilter {
	const whatOffset = nlHeaderLen + cnHeaderLen
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], mask)
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_LEN},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: messageLen, Jf: 2},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: whatOffset},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: binary.BigEndian.Uint32(b[:]), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: ^uint32(0)},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}

// attach has the kernel drop what mask does not have before it is queued.
func (l *Listener) attach(mask uint32) error {
	p := program(mask)
	err := l.control(func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]})
	})
	if err != nil {
		return fmt.Errorf("proc connector: attach filter: %w", err)
	}
	return nil
}

// wanted are the kinds that Receive returns.
func (l *Listener) wanted() kindSet { return kindSet(l.kinds.Load()) }

// SetKinds changes which kinds of events are asked for, as [Config].Kinds has
// them, without a gap: when it returns, no event of these that happens
// is missed, and what was queued before is sorted out by the new kinds. It
// is an error to ask for what cannot be asked for. After any other error it is not
// known what comes; the kinds may be set again.
func (l *Listener) SetKinds(kinds ...Kind) error {
	set, err := kindsOf(kinds)
	if err != nil {
		return err
	}
	if l.filter == socketFilter || l.filter == anyFilter {
		if err := l.attach(set.mask()); err != nil {
			return err
		}
	}
	if l.filter == connectorFilter || l.filter == anyFilter {
		// Who listens already changes its mask by that. It has taken effect when
		// the call returns: the kernel runs the connector's callback in it.
		if err := l.send(mcastListen, set.mask()); err != nil {
			return explain("subscribe", err)
		}
	}
	l.kinds.Store(uint32(set))
	return nil
}
