package sockets

import (
	"cmp"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// Set is the open sockets of a daemon. It is for one goroutine. No method
// waits for anyone, but for the file system of a unix socket.
type Set struct {
	open map[Key]*socket
}

type socket struct {
	fd       int
	cookie   uint64
	file     inode // of a unix socket
	uid, gid int   // as given; -1 when not known
	mode     uint32
}

// NewSet returns an empty set.
func NewSet() *Set { return &Set{open: make(map[Key]*socket)} }

// Open returns the descriptor of a socket, close-on-exec and owned by the set,
// and opens it if it is not open yet. It has the user and the mode of the Spec
// afterwards. index tells the sockets of one Spec with ReusePort apart and is
// ignored otherwise. An error is an [Error] and leaves nothing behind.
//
// The socket blocks at first, as programs that are started by systemd know it.
// A program that sets O_NONBLOCK sets it for all that share the socket, now and
// later. alone says that nobody has the socket at present; then it blocks again.
func (s *Set) Open(spec *Spec, index int, alone bool) (fd int, err error) {
	key := spec.key(index)
	it := s.open[key]
	switch {
	case it == nil || !it.sound(key):
		return s.make(spec, key)
	case it.uid != spec.UID || it.gid != spec.GID || it.mode != spec.Mode:
		if err := it.dress(spec); err != nil {
			return -1, err
		}
	}
	if alone {
		if err := unix.SetNonblock(it.fd, false); err != nil {
			return -1, spec.fail("fcntl", err)
		}
	}
	return it.fd, nil
}

// make opens a socket. If it takes the place of one that is not sound any more
// it gets the same descriptor, which a start may be about to pass on.
func (s *Set) make(spec *Spec, key Key) (fd int, err error) {
	it := &socket{uid: spec.UID, gid: spec.GID, mode: spec.Mode}
	if it.fd, it.file, err = spec.open(); err != nil {
		return -1, err
	}
	op := "getsockopt"
	it.cookie, err = cookieOf(it.fd)
	if old := s.open[key]; old != nil && err == nil {
		op, err = "dup", unix.Dup3(it.fd, old.fd, unix.O_CLOEXEC)
		if err == nil {
			unix.Close(it.fd)
			it.fd = old.fd
		}
	}
	if err != nil {
		it.close(key)
		return -1, spec.fail(op, err)
	}
	s.open[key] = it
	return it.fd, nil
}

// dress gives a socket that is open its user and mode.
func (it *socket) dress(spec *Spec) error {
	if err := unix.Fchown(it.fd, spec.UID, spec.GID); err != nil {
		return spec.fail("fchown", err)
	}
	if spec.Network == Unix {
		if _, op, err := spec.dressFile(it.fd, it.file); err != nil {
			return spec.fail(op, err)
		}
	}
	it.uid, it.gid, it.mode = spec.UID, spec.GID, spec.Mode
	return nil
}

// sound reports whether clients still reach the socket. A program that was given
// it may have ended that for all by shutdown(2); listening again mends it, unless
// the program did worse. The file of a unix socket may have been removed.
func (it *socket) sound(key Key) bool {
	if key.Network == UDP {
		return true
	}
	if key.Network == Unix && !isFile(key.Address, it.file) {
		return false
	}
	on, err := unix.GetsockoptInt(it.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && (on == 1 || unix.Listen(it.fd, maxBacklog) == nil)
}

// Has reports whether the socket is open.
func (s *Set) Has(spec *Spec, index int) bool { return s.open[spec.key(index)] != nil }

// Drop closes one socket, if it is open, and removes the file of a unix one.
// Programs that it was passed to still have it; what waits in its queue is lost
// when the last of them has closed it.
func (s *Set) Drop(spec *Spec, index int) { s.close(spec.key(index)) }

// Retain drops all sockets but those that are of one of the specs, at whatever
// index.
func (s *Set) Retain(specs []*Spec) {
	wanted := make(map[Key]bool, len(specs))
	for _, spec := range specs {
		wanted[spec.key(0)] = true
	}
	for key := range s.open {
		first := key
		first.Index = 0
		if !wanted[first] {
			s.close(key)
		}
	}
}

// Close drops all sockets.
func (s *Set) Close() { s.Retain(nil) }

func (s *Set) close(key Key) {
	if it := s.open[key]; it != nil {
		it.close(key)
		delete(s.open, key)
	}
}

func (it *socket) close(key Key) {
	if key.Network == Unix {
		removeFile(key.Address, it.file)
	}
	unix.Close(it.fd)
}

// Records returns the open sockets that are sound, for a hand-over, sorted.
// The descriptors stay the set's.
func (s *Set) Records() []Record {
	var out []Record
	for _, key := range slices.SortedFunc(maps.Keys(s.open), compare) {
		it := s.open[key]
		if !it.sound(key) {
			continue
		}
		out = append(out, Record{Key: key, FD: it.fd, Cookie: it.cookie, Dev: it.file.dev, Ino: it.file.ino})
	}
	return out
}

func compare(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Address, b.Address), cmp.Compare(a.Index, b.Index))
}

// Inherit takes over a socket from the Records of another set, which may have been
// another process's: r.FD is its descriptor here. Whatever comes of it, the
// descriptor is the set's from then on, and with an error, which means that it
// is not the socket that the record is about, it is closed.
func (s *Set) Inherit(r Record) error {
	if err := r.check(r.FD); err != nil {
		unix.Close(r.FD)
		return err
	}
	unix.CloseOnExec(r.FD)
	s.close(r.Key)
	s.open[r.Key] = &socket{fd: r.FD, cookie: r.Cookie, file: inode{r.Dev, r.Ino}, uid: -1, gid: -1}
	return nil
}
