// Package fdstore has a service manager keep descriptors while a daemon is dead:
// the file descriptor store of systemd (sd_notify(3), systemd.service(5)). What is
// kept there is passed to the next daemon; a pidfd of a process that ended meanwhile
// then still tells how.
//
// It knows the notify socket, the environment variables of sd_listen_fds(3) and
// kinds of descriptors. It must not know what they are for: a name in the store says
// what the kernel says of the object, so that a daemon that knows nothing else finds
// the name of what it holds.
package fdstore

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// MaxKept is the most descriptors that are kept. Their names are passed in one
// environment variable, of which execve(2) takes 128 KiB: with more the manager
// could not start the daemon any more.
const MaxKept = 8000

// patience is how long a manager may leave a message lying before it counts as
// refused.
const patience = 5 * time.Second

// Store sends descriptors to the service manager. Its methods never wait for it, and
// are safe for concurrent use; one goroutine does the sending, in order.
type Store struct {
	conn   *net.UnixConn
	max    int
	failed func(error)
	done   chan struct{}

	mu     sync.Mutex
	wake   *sync.Cond
	queue  []*message
	kept   map[string]bool // by name: false if nobody has asked for it in this process
	full   bool            // said
	closed bool
}

// message is one datagram.
type message struct {
	text string
	name string
	fd   int // -1: none
}

// ErrFull is what Options.Failed gets when there is no more room.
var ErrFull = errors.New("the service manager's store of descriptors is full")

// Options say how to reach the manager.
type Options struct {
	// Socket is NOTIFY_SOCKET: a path, or a name that begins with @.
	Socket string
	// Max is how many descriptors the manager keeps (FileDescriptorStoreMax=). 0: none,
	// and Keep does nothing.
	Max int
	// Kept are the names of what is kept already.
	Kept []string
	// Failed is told, from any goroutine, what could not be kept and why.
	Failed func(error)
}

// New returns a Store that sends to the manager.
func New(o Options) (*Store, error) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: o.Socket, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("notify socket: %w", err)
	}
	s := &Store{conn: conn, max: min(o.Max, MaxKept), failed: o.Failed, done: make(chan struct{}), kept: make(map[string]bool)}
	s.wake = sync.NewCond(&s.mu)
	for _, name := range o.Kept {
		if ours(name) {
			s.kept[name] = false
		}
	}
	go s.run()
	return s, nil
}

// Keep has a descriptor kept, unless it is, and returns its name: empty if it is of a
// kind that is not worth it. The descriptor stays the caller's.
func (s *Store) Keep(fd int) (name string) {
	if name = NameOf(fd); name == "" {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.kept[name]; known || s.max == 0 || s.closed {
		if known {
			s.kept[name] = true
		}
		return name
	}
	if len(s.kept) >= s.max {
		if !s.full {
			s.full = true
			go s.failed(fmt.Errorf("%w: it takes %d", ErrFull, s.max))
		}
		return name
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		go s.failed(fmt.Errorf("keep %s: %w", name, err))
		return name
	}
	s.kept[name] = true
	s.put(&message{"FDSTORE=1\nFDNAME=" + name + "\nFDPOLL=0", name, own})
	return name
}

// Forget has what is kept under a name kept no more.
func (s *Store) Forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(name)
}

// forget is Forget. mu is held.
func (s *Store) forget(name string) {
	if _, known := s.kept[name]; !known || s.closed {
		return
	}
	delete(s.kept, name)
	s.full = false
	for _, m := range s.queue {
		if m.fd >= 0 && m.name == name { // it was not sent yet
			unix.Close(m.fd)
			m.text, m.fd = "", -1
			return
		}
	}
	s.put(&message{"FDSTOREREMOVE=1\nFDNAME=" + name, name, -1})
}

// Sweep forgets what nobody asked for since New: it belongs to what is no more.
func (s *Store) Sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, asked := range s.kept {
		if !asked {
			s.forget(name)
		}
	}
}

// Names lists what is kept, for the next image of this process.
func (s *Store) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.kept))
	for name := range s.kept {
		names = append(names, name)
	}
	return names
}

// Notify sends an assignment such as READY=1.
func (s *Store) Notify(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.put(&message{text, "", -1})
	}
}

// Flush waits until everything is sent, or was refused.
func (s *Store) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 {
		s.wake.Wait()
	}
}

// Close sends what is left, for as long as the manager takes it, and ends.
func (s *Store) Close() {
	s.mu.Lock()
	s.closed = true
	s.wake.Broadcast()
	s.mu.Unlock()
	<-s.done
	s.conn.Close()
}

// put queues m. mu is held.
func (s *Store) put(m *message) {
	s.queue = append(s.queue, m)
	s.wake.Broadcast()
}

// run sends what is queued.
func (s *Store) run() {
	defer close(s.done)
	s.mu.Lock()
	defer s.mu.Unlock()
	refused := false
	for {
		for len(s.queue) == 0 {
			if s.closed {
				return
			}
			s.wake.Wait()
		}
		m := *s.queue[0]
		s.queue[0].fd = -1 // too late to take it back
		s.mu.Unlock()
		err := s.send(m)
		if m.fd >= 0 {
			unix.Close(m.fd)
		}
		if err != nil && !refused {
			s.failed(err)
		}
		refused = err != nil
		s.mu.Lock()
		if err != nil && m.fd >= 0 {
			delete(s.kept, m.name)
		}
		s.queue = s.queue[1:]
		s.wake.Broadcast()
	}
}

// send sends one message.
func (s *Store) send(m message) error {
	if m.text == "" {
		return nil
	}
	var rights []byte
	if m.fd >= 0 {
		rights = unix.UnixRights(m.fd)
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, _, err := s.conn.WriteMsgUnix([]byte(m.text), rights, nil); err != nil {
		return fmt.Errorf("notify socket: the service manager was not told: %w", err)
	}
	return nil
}

// A Kept is a descriptor that the manager passed.
type Kept struct {
	FD   int
	Name string
}

// Inherit returns what the manager kept and passed to this process, and removes the
// variables that say so: they are for one process. The descriptors are close-on-exec.
// What another put there, a socket unit for one, is not returned and stays open.
func Inherit() []Kept {
	pid, fds, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	n, err := strconv.Atoi(fds)
	if pid != strconv.Itoa(os.Getpid()) || err != nil || n < 0 || n > 1<<20 {
		return nil
	}
	var kept []Kept
	all := strings.Split(names, ":")
	for i := range n {
		fd := firstFD + i
		unix.CloseOnExec(fd)
		if i < len(all) && ours(all[i]) && NameOf(fd) == all[i] {
			kept = append(kept, Kept{fd, all[i]})
		}
	}
	return kept
}

// firstFD is SD_LISTEN_FDS_START.
const firstFD = 3
