package logs

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// sink writes bytes to a descriptor without ever waiting for its reader, as
// far as the kernel lets it, and without touching the flags of an open file
// that other processes share. It belongs to the reader goroutine.
type sink struct {
	fd   int  // of our own; -1 if there is none to be had
	sock bool // use MSG_DONTWAIT
	poll bool // fd may wait: ask poll(2) first and write no more than is sure to fit

	buf      []byte
	off      int  // bytes of buf already written
	file     bool // a regular file, and which
	dev, ino uint64
	appends  bool     // with O_APPEND
	backlog  *backlog // where buf is, as long as it is not longer than that; or nil
	done     int      // how much of the chunk is in buf
	blocked  bool     // the last write would have waited
	watched  bool     // in the epoll set
	torn     bool     // what was written last is a part of a line whose rest was dropped
	lost     uint64   // lines dropped since writing last worked
	why      error    // why they were dropped
}

// pipeBuf is how much a pipe that polls writable takes without waiting.
const pipeBuf = 4096

// newSink chooses the way to write to file, which may be closed afterwards.
func newSink(file *os.File) *sink {
	s := &sink{fd: -1}
	conn, err := file.SyscallConn()
	if err != nil {
		return s // closed: each write fails and is counted
	}
	// Not file.Fd, which may make the file blocking.
	_ = conn.Control(func(fd uintptr) { s.open(int(fd)) })
	return s
}

// open makes a descriptor of our own from fd.
func (s *sink) open(fd int) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		s.sock = true
	case unix.S_IFIFO, unix.S_IFCHR:
		// O_NONBLOCK on the descriptor we were given would be seen by the
		// shell and by all who share it. A second open file is our own. It
		// cannot be had when the pipe is another user's, for one.
		path := fmt.Sprintf("/proc/self/fd/%d", fd)
		own, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err == nil {
			s.fd = own
			return
		}
		s.poll = true
	}
	s.file = st.Mode&unix.S_IFMT == unix.S_IFREG
	s.dev, s.ino = uint64(st.Dev), st.Ino
	flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	s.appends = flags&unix.O_APPEND != 0
	// The offset and O_APPEND of a regular file are shared on purpose.
	if own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err == nil {
		s.fd = own
	}
}

// close closes the descriptor.
func (s *sink) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

// waiting returns the number of bytes not yet written.
func (s *sink) waiting() int { return len(s.buf) - s.off }

// unwritten returns a copy of what is not yet written, for another sink to go
// on with.
func (s *sink) unwritten() []byte {
	var b []byte
	if s.torn {
		b = append(b, '\n')
	}
	return append(b, s.buf[s.off:]...)
}

// hold has buf in a backlog from now on.
func (s *sink) hold(b *backlog) { s.backlog, s.buf = b, b.lines() }

// fits reports whether a line of n bytes has room in the backlog, however it has to
// be written.
func (s *sink) fits(n int) bool { return linesSize-len(s.buf) >= worstLine+worstByte*n }

const (
	worstByte = 5       // a byte that is escaped twice: \\x00
	worstLine = 2 << 10 // all that is not the line itself
)

// inBacklog reports whether buf is there: a line of the daemon's own may be longer
// than that.
func (s *sink) inBacklog() bool { return s.backlog != nil && cap(s.buf) == linesSize }

// commit has the backlog hold what buf is now, and the chunk no more what is in buf.
func (s *sink) commit() {
	if s.inBacklog() {
		s.backlog.progress(len(s.buf), s.done)
	}
}

// finish ends the chunk.
func (s *sink) finish() {
	s.done = 0
	if s.backlog != nil {
		s.backlog.unread()
		s.commit()
	}
}

// written notes that n bytes more are written.
func (s *sink) written(n int) {
	s.off += n
	if s.backlog != nil {
		s.backlog.wrote(s.off)
	}
}

// flush writes what waits, until it is done or would have to wait (blocked),
// or drops it when writing fails. It returns the number of lines dropped.
func (s *sink) flush() (dropped uint64) {
	s.commit()
	s.blocked = false
	if s.torn && s.waiting() > 0 {
		// End the piece that a failure left behind, so that it does not run
		// into the next line.
		if _, err := s.write([]byte{'\n'}); err != nil {
			return s.stop(err)
		}
		s.torn = false
	}
	for s.waiting() > 0 {
		s.note()
		n, err := s.write(s.buf[s.off:])
		if err != nil {
			return s.stop(err)
		}
		s.written(n)
	}
	s.reset()
	return 0
}

// recovered reports what was lost in an outage that is over, once.
func (s *sink) recovered() (lost uint64, why error) {
	if s.blocked || s.torn {
		return 0, nil
	}
	lost, why = s.lost, s.why
	s.lost, s.why = 0, nil
	return lost, why
}

// stop handles a write that did not succeed.
func (s *sink) stop(err error) (dropped uint64) {
	if err == unix.EAGAIN {
		s.blocked = true
		return 0
	}
	s.torn = s.torn || s.off > 0 && s.buf[s.off-1] != '\n'
	dropped = uint64(bytes.Count(s.buf[s.off:], []byte{'\n'}))
	s.lost += dropped
	s.why = err
	s.reset()
	return dropped
}

// note has the backlog know where in a file the next write begins, so that after a
// death in the middle of it can be seen how far it came.
func (s *sink) note() {
	if s.backlog == nil || !s.file {
		return
	}
	pos, err := unix.Seek(s.fd, 0, unix.SEEK_CUR)
	if s.appends {
		var st unix.Stat_t
		err = unix.Fstat(s.fd, &st)
		pos = st.Size
	}
	if err == nil {
		s.backlog.writing(s.dev, s.ino, pos, s.off)
	}
}

// reset empties the buffer and gives a large one back.
func (s *sink) reset() {
	if s.backlog != nil {
		s.buf, s.off = s.backlog.lines(), 0
		s.backlog.emptied(s.done)
		return
	}
	if cap(s.buf) > 1<<20 {
		s.buf = nil
	}
	s.buf, s.off = s.buf[:0], 0
}

// write is one write(2) that does not wait. err is EAGAIN if it would have to.
func (s *sink) write(p []byte) (int, error) {
	if s.poll {
		fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(fds, 0); n == 0 || err != nil {
			return 0, unix.EAGAIN
		}
		p = p[:min(len(p), pipeBuf)]
	}
	for {
		var n int
		var err error
		if s.sock {
			n, err = unix.SendmsgN(s.fd, p, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		} else {
			n, err = unix.Write(s.fd, p)
		}
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		return n, nil
	}
}
