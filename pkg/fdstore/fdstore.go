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
	"cmp"
	"errors"
	"fmt"
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
	to     *unix.SockaddrUnix
	socket *os.File
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
	to := &unix.SockaddrUnix{Name: o.Socket} // x/sys knows what an @ means
	socket, err := connect(to)
	if err != nil {
		return nil, err
	}
	s := &Store{to: to, socket: socket, max: min(o.Max, MaxKept), failed: o.Failed, done: make(chan struct{}), kept: make(map[string]bool)}
	s.wake = sync.NewCond(&s.mu)
	for _, name := range o.Kept {
		if _, _, ok := parse(name); ok {
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

// Close sends what is left, for as long as the manager takes it, and ends.
func (s *Store) Close() {
	s.mu.Lock()
	s.closed = true
	s.wake.Broadcast()
	s.mu.Unlock()
	<-s.done
	s.socket.Close()
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
		n := 1
		if err != nil {
			n = len(s.queue) // it would be the same for all of them
		}
		s.drop(n, err != nil)
	}
}

// drop takes the first n messages off the queue. mu is held.
func (s *Store) drop(n int, refused bool) {
	for _, m := range s.queue[:n] {
		if m.fd >= 0 {
			unix.Close(m.fd)
		}
		if refused {
			delete(s.kept, m.name) // nobody knows: when it comes again it is sent again
		}
	}
	s.queue = s.queue[n:]
	s.wake.Broadcast()
}

// send sends one message.
func (s *Store) send(m message) error {
	if m.text == "" {
		return nil
	}
	err := s.write(m)
	if errors.Is(err, unix.ECONNREFUSED) { // the manager may have another socket by now
		socket, err2 := connect(s.to)
		if err2 != nil {
			return err2
		}
		s.socket.Close()
		s.socket = socket
		err = s.write(m)
	}
	if err != nil {
		return fmt.Errorf("notify socket: the service manager was not told: %w", err)
	}
	return nil
}

// write is one sendmsg(2), which waits in Go's poller for room in the queue.
func (s *Store) write(m message) error {
	var rights []byte
	if m.fd >= 0 {
		rights = unix.UnixRights(m.fd)
	}
	if err := s.socket.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	conn, err := s.socket.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = conn.Write(func(fd uintptr) bool {
		sent = unix.Sendmsg(int(fd), []byte(m.text), rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return sent != unix.EAGAIN
	})
	return cmp.Or(err, sent)
}

// connect returns a socket that is connected to the manager's: without that, nobody
// would say when its queue has room.
func connect(to *unix.SockaddrUnix) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("notify socket: %w", err)
	}
	if err := unix.Connect(fd, to); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("notify socket %s: %w", to.Name, err)
	}
	return os.NewFile(uintptr(fd), "notify"), nil
}

// A Kept is a descriptor that the manager passed.
type Kept struct {
	FD     int
	Name   string
	Kind   Kind
	Number uint64 // that the kernel gave to what it is of
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
		if i >= len(all) {
			continue
		}
		if kind, number, ok := parse(all[i]); ok && NameOf(fd) == all[i] {
			kept = append(kept, Kept{fd, all[i], kind, number})
		}
	}
	return kept
}

// firstFD is SD_LISTEN_FDS_START.
const firstFD = 3
