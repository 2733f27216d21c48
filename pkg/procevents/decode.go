package procevents

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrMalformed is matched by every error of [Decode].
var ErrMalformed = errors.New("malformed proc connector message")

// Decode makes no errors of its own while it runs, so that a flood of bad
// messages costs no allocations.
var (
	errShort  = fmt.Errorf("%w: too short", ErrMalformed)
	errLength = fmt.Errorf("%w: length fields disagree with its size", ErrMalformed)
	errType   = fmt.Errorf("%w: not a connector message", ErrMalformed)
	errCnID   = fmt.Errorf("%w: not of the proc connector", ErrMalformed)
)

// Layout of a datagram: struct nlmsghdr, struct cn_msg (linux/connector.h),
// struct proc_event (linux/cn_proc.h), all in the host's byte order.
const (
	nlHeaderLen    = 16
	cnHeaderLen    = 20
	eventHeaderLen = 16
	eventDataLen   = 24 // the union in struct proc_event
	eventLen       = eventHeaderLen + eventDataLen
	messageLen     = nlHeaderLen + cnHeaderLen + eventLen

	cnIdxProc = 1
	cnValProc = 1
)

// Decode returns the event in a netlink message of the connector: of a datagram,
// the first. The kernel sends one a datagram. A kind it does not know is an
// event of Kind Unknown, not an error. It keeps no reference to b, allocates
// nothing and never panics.
func Decode(b []byte) (Event, error) {
	var e Event
	_, err := e.decode(b)
	return e, err
}

// decode sets e to the event in the first message of b and returns the length of
// that message, which is 0 if it cannot be known. After an error e is undefined.
func (e *Event) decode(b []byte) (size int, err error) {
	if len(b) < nlHeaderLen+cnHeaderLen+eventHeaderLen {
		return 0, errShort
	}
	ne := binary.NativeEndian
	n32 := ne.Uint32(b[0:])
	if n32 < nlHeaderLen+cnHeaderLen || uint64(n32) > uint64(len(b)) {
		return 0, errLength
	}
	size = int(n32)
	if ne.Uint16(b[4:]) != unix.NLMSG_DONE {
		return size, errType
	}
	cn := b[nlHeaderLen:size]
	if ne.Uint32(cn[0:]) != cnIdxProc || ne.Uint32(cn[4:]) != cnValProc {
		return size, errCnID
	}
	body := cn[cnHeaderLen:]
	n := int(ne.Uint16(cn[16:]))
	if n > len(body) {
		return size, errLength
	}
	// Every kernel sends the whole structure, whatever the kind. More than we
	// know of may be a later kernel's.
	if n < eventLen {
		return size, errShort
	}
	*e = Event{
		What:      ne.Uint32(body[0:]),
		CPU:       ne.Uint32(body[4:]),
		Seq:       ne.Uint32(cn[8:]),
		Timestamp: timestamp(ne.Uint64(body[8:])),
	}
	e.decodeData((*[eventDataLen]byte)(body[eventHeaderLen:]))
	return size, nil
}

// decodeData fills in the kind and what belongs to it.
func (e *Event) decodeData(d *[eventDataLen]byte) {
	word := func(i int) uint32 { return binary.NativeEndian.Uint32(d[4*i:]) }
	id := func(i int) int32 { return int32(word(i)) }
	switch e.What {
	case 0x00000000:
		e.Kind, e.AckErrno = Ack, word(0)
		return
	case 0x00000001:
		e.Kind = Fork
		e.ParentPID, e.ParentTGID, e.PID, e.TGID = id(0), id(1), id(2), id(3)
		return
	case 0x00000002:
		e.Kind = Exec
	case 0x00000004:
		e.Kind, e.RealID, e.EffectiveID = UID, word(2), word(3)
	case 0x00000040:
		e.Kind, e.RealID, e.EffectiveID = GID, word(2), word(3)
	case 0x00000080:
		e.Kind = SID
	case 0x00000100:
		e.Kind, e.TracerPID, e.TracerTGID = Ptrace, id(2), id(3)
	case 0x00000200:
		e.Kind, e.Comm = Comm, [16]byte(d[8:])
	case 0x40000000:
		e.Kind, e.ParentPID, e.ParentTGID = Coredump, id(2), id(3)
	case 0x80000000:
		e.Kind, e.ExitCode, e.ExitSignal = Exit, word(2), id(3)
		e.ParentPID, e.ParentTGID = id(4), id(5)
	default:
		return
	}
	e.PID, e.TGID = id(0), id(1)
}
