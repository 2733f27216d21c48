package logs

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Path returns the path of the FIFO of k, for the child's standard output and
// error. Open it O_RDWR, blocking, anew for each start.
func (o *Output) Path(k Key) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f := o.byKey[k]; f != nil {
		return f.path
	}
	return o.dir.name(k.file())
}

// Dir is a descriptor of the directory that all FIFOs are in, which is good until Close.
func (o *Output) Dir() int { return o.dir.fd }

// recheck is how long Add takes for granted that a FIFO stands at its path. A
// start that finds none fails, and is tried again later than that.
const recheck = time.Second

// Add makes the FIFO of k, or opens the one that an earlier daemon left, with
// what was written into it since, and reads it from now on. For a FIFO that is
// read already it makes sure, once a second, that it still stands at its path,
// and makes it anew if it does not. The error names the path.
func (o *Output) Add(k Key) error {
	_, err := o.AddFor(k, os.Geteuid())
	return err
}

// Adopt is Add for a process that is there already, or was: what it wrote meanwhile,
// and what it will, comes under its pid. The FIFO is whose it is.
func (o *Output) Adopt(k Key, pid int, incarnation uint64) error {
	if err := k.valid(); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state == closed {
		return errClosed
	}
	f := o.byKey[k]
	if f == nil {
		var err error
		if f, err = o.openFor(k, os.Geteuid(), pid, incarnation); err != nil {
			return err
		}
	}
	o.send(f, command{verb: verbLabel, rec: Record{Key: k, PID: pid, Incarnation: incarnation}})
	o.queue.flush()
	return nil
}

// AddFor is Add for a child that runs as the user uid, and owns the FIFO. It returns which
// FIFO stands at its path: another one, made later, has another id. One
// of another user is replaced, after what is in it was read: a process of
// his may still hold it open, and must not read or write what is the new
// user's. Only root can give a FIFO to another user.
func (o *Output) AddFor(k Key, uid int) (id uint64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state == closed {
		return 0, errClosed
	}
	f := o.byKey[k]
	if f == nil {
		if err := k.valid(); err != nil {
			return 0, err
		}
	}
	if f != nil && f.uid == uid {
		now := time.Now()
		if now.Sub(f.checked) < recheck {
			return f.id, nil
		}
		if o.dir.holds(k.file(), f.fd) {
			f.checked = now
			return f.id, nil
		}
	}
	if f == nil || f.uid == uid {
		if f, err = o.openFor(k, uid, 0, 0); err != nil {
			return 0, err
		}
	}
	if f.uid != uid {
		o.dir.remove(k.file())
		if f, err = o.openFor(k, uid, 0, 0); err != nil {
			return 0, err
		}
	}
	return f.id, nil
}

// openFor opens the FIFO that stands at its path, or makes one. mu is held.
func (o *Output) openFor(k Key, uid, pid int, incarnation uint64) (*fifo, error) {
	fd, owner, err := o.dir.open(k.file(), uid)
	if err != nil {
		return nil, err
	}
	return o.adopt(k, fd, owner, pid, incarnation)
}

// adopt puts an open FIFO of the user owner among those that are read, and closes fd if
// it cannot. One that was read under the same key is read on, since a child may still
// write to it. mu is held.
func (o *Output) adopt(k Key, fd, owner, pid int, incarnation uint64) (*fifo, error) {
	f := o.claim(k)
	claimed := f != nil
	if !claimed {
		f = o.newFIFO(k)
		f.label = o.reader.format.label(k, pid, incarnation)
		f.wantPID, f.wantInc = pid, incarnation
	}
	if err := epollAdd(o.epfd, fd, f.id, unix.EPOLLIN|unix.EPOLLET); err != nil {
		unix.Close(fd)
		if claimed {
			o.orphans = append(o.orphans, f)
		}
		return nil, fmt.Errorf("%s: epoll_ctl: %w", f.path, err)
	}
	// The reader waits for mu before it looks which FIFO an event is about.
	f.mu.Lock()
	f.fd = fd
	f.mu.Unlock()
	f.uid, f.old, f.checked = owner, o.byKey[k], time.Now()
	o.byKey[k], o.byID[f.id] = f, f
	if f.old != nil && f.old.old != nil {
		o.drop(f.old.old)
		f.old.old = nil
	}
	return f, nil
}

// newFIFO returns one that is not open. mu is held.
func (o *Output) newFIFO(k Key) *fifo {
	f := &fifo{key: k, path: o.dir.name(k.file()), id: o.nextID, fd: -1, counts: o.counts(k.Entry)}
	o.nextID++
	return f
}

// claim returns the orphan of that key, if there is one: it belongs to the reader
// goroutine, and goes on. mu is held.
func (o *Output) claim(k Key) *fifo {
	for i := len(o.orphans) - 1; i >= 0; i-- {
		if f := o.orphans[i]; f.key == k {
			o.orphans = slices.Delete(o.orphans, i, i+1)
			return f
		}
	}
	return nil
}

// Remove prints what was written to the FIFO of k until now, ends a partial
// line, and closes and unlinks the FIFO. The counts of the entry stay.
func (o *Output) Remove(k Key) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.byKey[k]
	if f == nil || o.state == closed {
		return
	}
	o.dir.remove(k.file())
	delete(o.byKey, k)
	if f.old != nil {
		o.drop(f.old)
	}
	o.drop(f)
}

// Sweep unlinks the FIFOs of slots that are not read, and ends lines of which nobody
// will write the rest: what a daemon left that was killed, once all that it ran has
// been adopted.
func (o *Output) Sweep() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	names, err := o.dir.list()
	if err != nil {
		return err
	}
	read := make(map[string]bool, len(o.byKey))
	for k := range o.byKey {
		read[k.file()] = true
	}
	for _, f := range o.orphans {
		f.mu.Lock()
		f.pending++
		f.mu.Unlock()
		o.queue.put(command{verb: verbRemove, fifo: f})
	}
	o.orphans = nil
	for _, name := range names {
		if !read[name] && fifoName.MatchString(name) {
			o.dir.remove(name)
		}
	}
	return nil
}

// fifoName matches the names that Key.file makes.
var fifoName = regexp.MustCompile(`^[^:]+:[0-9]+\.(output|stdout|stderr)$`)

// drop has the reader finish with f. mu is held.
func (o *Output) drop(f *fifo) {
	delete(o.byID, f.id)
	if !o.send(f, command{verb: verbRemove}) {
		f.close(o.epfd) // the output is stuck and the queue full: its last words are lost
	}
}

// epollAdd puts fd into the set with id as its data.
func epollAdd(epfd, fd int, id uint64, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(uint32(id)), Pad: int32(id >> 32)}
	return unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, fd, &ev)
}

// eventID returns the data of an event.
func eventID(ev *unix.EpollEvent) uint64 {
	return uint64(uint32(ev.Fd)) | uint64(uint32(ev.Pad))<<32
}
