package fdstore

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Names are short, since all of them together are bounded, and begin with the kind;
// then comes the number that the kernel gave to the object.
const (
	pidfdKind  = "p." // inode in pidfs
	fifoKind   = "f." // inode
	socketKind = "s." // cookie
)

// NameOf returns the name of a descriptor in the store, or an empty one if it is none
// that is kept. A pidfd before Linux 6.9 has no number of its own, and cannot tell
// how its process ended anyway.
func NameOf(fd int) string {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return ""
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return fifoKind + number(st.Ino)
	case unix.S_IFSOCK:
		if cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE); err == nil {
			return socketKind + number(cookie)
		}
		return ""
	}
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.PID_FS_MAGIC {
		return PidfdName(st.Ino)
	}
	return ""
}

// PidfdName is the name of a pidfd with that inode.
func PidfdName(inode uint64) string { return pidfdKind + number(inode) }

func number(n uint64) string { return strconv.FormatUint(n, 36) }

// ours reports whether a name is one that NameOf makes.
func ours(name string) bool {
	kind, rest := name[:min(2, len(name))], name[min(2, len(name)):]
	if kind != pidfdKind && kind != fifoKind && kind != socketKind {
		return false
	}
	_, err := strconv.ParseUint(rest, 36, 64)
	return err == nil && !strings.ContainsAny(rest, "+-_")
}
