package fdstore

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// NameOf returns the name of a descriptor in the store, or an empty one if it is none
// that is kept. A pidfd before Linux 6.9 has no number of its own, and cannot tell
// how its process ended anyway. Names are short, since all of them together are
// bounded: the kind, and the number that the kernel gave to the object.
func NameOf(fd int) string {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return ""
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return FIFO.name(st.Ino)
	case unix.S_IFSOCK:
		if cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err == nil {
			return Socket.name(cookie)
		}
		return ""
	}
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.PID_FS_MAGIC {
		return Pidfd.name(st.Ino)
	}
	return ""
}

// A Kind is what a descriptor is of.
type Kind string

// The kinds, as names begin.
const (
	Pidfd  Kind = "p." // with the inode in pidfs
	FIFO   Kind = "f." // with the inode
	Socket Kind = "s." // with the cookie, SO_COOKIE
)

// parse takes a name apart, if it is one that NameOf makes.
func parse(name string) (kind Kind, number uint64, ok bool) {
	for _, kind := range []Kind{Pidfd, FIFO, Socket} {
		if rest, is := strings.CutPrefix(name, string(kind)); is {
			number, err := strconv.ParseUint(rest, 36, 64)
			return kind, number, err == nil && kind.name(number) == name
		}
	}
	return "", 0, false
}

func (k Kind) name(number uint64) string { return string(k) + strconv.FormatUint(number, 36) }
