package sockets

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Set is the open sockets of a daemon. It is for one goroutine. No method waits for
// anyone, the file systems of unix sockets included, but for Close.
type Set struct {
	open map[Key]*socket

	steps  map[Key][]step // of unix sockets, in order; the first is under way or due
	due    []Key          // those whose first step waits for its visit
	visits int            // under way
	untold map[Key]bool   // opened for a request that was over by then
	news   news
	before func(path string) // called by each visit before it does something
}

// socket is never written to once it is in a Set.
type socket struct {
	fd       int
	cookie   uint64
	file     inode // of a unix socket
	uid, gid int   // as given; -1 when not known
	mode     uint32
}

// NewSet returns an empty set.
func NewSet() *Set {
	return &Set{
		open: make(map[Key]*socket), steps: make(map[Key][]step), untold: make(map[Key]bool),
		news: news{ready: make(chan struct{}, 1)}, before: func(string) {},
	}
}

// Open has sockets open, and calls then with their descriptors in that order,
// close-on-exec and owned by the set: before it returns if there is no unix socket
// among them, else from Take. Each is opened if it is not, and has the user and the
// mode of its Spec afterwards; opened says that one was, be it for an earlier call that
// had given up. An error is an [Error], the first one; what could be opened
// stays open. A file system that does not answer for four seconds is an error,
// ETIMEDOUT; what is asked of it later is not done before it answers.
func (s *Set) Open(list []Want, then func(fds []int, opened bool, err error)) {
	r := &request{list: list, then: then}
	for i := range list {
		w := &list[i]
		if w.Spec.Network == Unix {
			r.left++
			continue
		}
		key := w.key()
		was := s.open[key]
		it, err := open(w.Spec, key, was)
		if err != nil {
			s.finish(r, err)
			return
		}
		r.opened = r.opened || was == nil || was.cookie != it.cookie
		s.open[key] = it
	}
	if r.left == 0 {
		s.finish(r, nil)
		return
	}
	r.timer = time.AfterFunc(patience, func() { s.news.post(func() { s.expire(r) }) })
	for i := range list {
		if w := &list[i]; w.Spec.Network == Unix {
			s.enqueue(w.key(), step{w.Spec, r})
		}
	}
}

// open returns the socket as the Spec has it: what it was, if that is sound.
func open(spec *Spec, key Key, was *socket) (*socket, error) {
	switch {
	case was == nil || !was.sound(key):
		return create(spec, key, was)
	case was.uid != spec.UID || was.gid != spec.GID || was.mode != spec.Mode:
		it := *was
		if err := it.dress(spec); err != nil {
			return nil, err
		}
		return &it, nil
	}
	return was, nil
}

// create opens a socket. If it takes the place of one that is not sound any more
// it gets the same descriptor, which a start may be about to pass on.
func create(spec *Spec, key Key, was *socket) (it *socket, err error) {
	it = &socket{uid: spec.UID, gid: spec.GID, mode: spec.Mode}
	if it.fd, it.file, err = spec.open(); err != nil {
		return nil, err
	}
	op := "getsockopt"
	it.cookie, err = cookieOf(it.fd)
	if was != nil && err == nil {
		op, err = "dup", unix.Dup3(it.fd, was.fd, unix.O_CLOEXEC)
		if err == nil {
			unix.Close(it.fd)
			it.fd = was.fd
		}
	}
	if err != nil {
		it.close(key)
		return nil, spec.fail(op, err)
	}
	return it, nil
}

// Block has an open socket block, as programs that are started by systemd know it. It does
// at first; a program that sets O_NONBLOCK sets it for all that share the socket, now
// and later. To be called when nobody has the socket.
func (s *Set) Block(spec *Spec, index int) error {
	if it := s.open[spec.key(index)]; it != nil {
		if err := unix.SetNonblock(it.fd, false); err != nil {
			return spec.fail("fcntl", err)
		}
	}
	return nil
}

// dress gives a socket that is open its user and mode, before others know of it.
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
	return it.listens()
}

func (it *socket) listens() bool {
	on, err := unix.GetsockoptInt(it.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && (on == 1 || unix.Listen(it.fd, maxBacklog) == nil)
}

// Drop closes one socket, if it is open or is being opened, and removes the file of a
// unix one as soon as its file system answers. Programs that it was passed to still have it; what waits in its queue is lost
// when the last of them has closed it.
func (s *Set) Drop(spec *Spec, index int) { s.close(spec.key(index)) }

// Retain drops all sockets but those that are of one of the specs, at whatever
// index.
func (s *Set) Retain(specs []*Spec) {
	wanted := make(map[Key]bool, len(specs))
	for _, spec := range specs {
		wanted[spec.key(0)] = true
	}
	for _, key := range slices.Concat(slices.Collect(maps.Keys(s.open)), slices.Collect(maps.Keys(s.steps))) {
		first := key
		first.Index = 0
		if !wanted[first] {
			s.close(key)
		}
	}
}

// Close drops all sockets, and waits until that is done: four seconds at most, after
// which a file may be left on a file system that hangs.
func (s *Set) Close() {
	s.Retain(nil)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for len(s.steps) > 0 {
		select {
		case <-s.news.ready:
			s.Take()
		case <-timer.C:
			return
		}
	}
}

func (s *Set) close(key Key) {
	switch it := s.open[key]; {
	case key.Network == Unix:
		if it != nil || len(s.steps[key]) > 0 {
			s.enqueue(key, step{})
		}
	case it != nil:
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

// Records returns the open sockets on which clients are still heard, for a hand-over,
// sorted. Whether a unix socket's file is still there, the next Open sees. The
// descriptors stay the set's.
func (s *Set) Records() []Record {
	var out []Record
	for _, key := range slices.SortedFunc(maps.Keys(s.open), compare) {
		it := s.open[key]
		if key.Network != UDP && !it.listens() {
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
