package spawn

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options of a Pool. The zero value is a good choice.
type Options struct {
	// Spawners is the number of goroutines that prepare starts; 2 if zero. Each may
	// wait for a file system.
	Spawners int
	// TouchTimeout is how long a file system may take to show an executable,
	// its interpreter, a directory or a Stdio, and then how long the child may
	// take from clone to execve; 4 s if zero. After that the start has failed
	// with ETIMEDOUT.
	TouchTimeout time.Duration
	// Identify has each Started come with the child's Identity. It costs some
	// microseconds a start, in the spawner.
	Identify bool
	// OwnSIGCHLD says that nothing else in this process wants SIGCHLD: no
	// [os/signal.Notify]. Unless it reaps orphans the Pool then gives the signal
	// its default action, which is to be ignored. Go's own handler costs a thread
	// that is woken, an exit.
	OwnSIGCHLD bool
	// Low has starts take less time. It is the Pool's, also if New fails. Nil is none.
	Low *Low
	// Step is called at named steps of a start and an end, for tests that kill this
	// process there: "clone" before the child is made, "cloned" when it has come to
	// its program and nobody knows, "reaped" when its status was taken and
	// nobody knows; and, for what may happen meanwhile, "listed" when it is known who was left
	// behind without a cgroup. Nil is nothing.
	Step func(name string)
}

// Pool starts children and watches them. Its methods may be called from any
// goroutine. A fixed number of goroutines serves any number of children.
type Pool struct {
	timeout      time.Duration
	identify     bool
	unmute       func() // gives Go its handler of SIGCHLD back
	step         func(string)
	clock        Clock
	ep           int                                // epoll set: one entry a watch, and the eventfd
	wakefd       int                                // eventfd that ends a Wait
	found        [256]unix.EpollEvent               // by Wait: as many exits as come at once are taken at once
	orig         origLimit                          // the RLIMIT_NOFILE that children get
	ignored      []syscall.Signal                   // by this process when New was called, and not by its children
	oom          *int                               // the oom_score_adj that children get, nil: ours
	fork         bool                               // no clone3 here: start by syscall.ForkExec
	exact        bool                               // the kernel has PIDFD_SIGNAL_PROCESS_GROUP (Linux 6.9)
	noCgroupKill bool                               // tests: as on a kernel before 5.14
	touch        func(path string) (missing string) // touchFile; tests put a hanging one here
	interps      interpCache
	ended        func(pidfd int) Status // exitStatus; tests put one with fewer rights here
	keeps        func() bool            // keepsStatus, found out once; tests put that of an earlier kernel here
	reserve      reserve
	spending     sync.Mutex // held while reserve is given up

	done sync.WaitGroup // walker, makeRoom

	stir    chan struct{}  // wakes the walker: dirty or orders
	sigchld chan os.Signal // does so too, once this process is a subreaper
	orphans map[int]Token  // living ones, and whose they are, 0 if that is not known; changed by the walker only, with mu held

	mu        sync.Mutex
	work      sync.Cond // of mu: the queue is not empty, or paused or closed changed
	idle      sync.Cond // of mu: a spawner is done with a job, or lost it; an exit was reported
	closed    bool
	paused    bool
	frozen    bool // paused, and ends are left where they are
	queue     queue
	spawners  map[*spawner]struct{}
	want      int            // spawners that should be able to take a job
	live      int            // those that can
	stuck     map[string]int // paths that did not answer, and how many spawners wait for each
	hung      atomic.Int32   // how many paths stuck holds
	children  map[Token]*child
	mains     map[int]*child        // the same by pid
	watches   map[uint64]*child     // whose an entry of the epoll set is
	held      atomic.Int32          // cgroups that are kept open, by whoever has them
	mostHeld  int32                 // of these
	kept      map[string]keptCgroup // cgroups that were seen to be empty when their child ended
	vacated   map[string]bool       // FIFOs of children without a cgroup that ended, and no other has been started with one since
	lastID    uint64
	room      int // descriptors that the table has room for
	events    []Event
	waiting   bool     // for events, in Wait
	brief     bool     // it ends within briefly by itself
	woken     bool     // by Wake, since the last Wait
	dirty     []*child // trees to look at
	orders    []order  // signals to trees
	unused    []string // cgroups to remove
	walking   bool     // the walker is at it
	survey    *Survey  // of its pass, for it alone
	anew      bool     // no survey is good for more than one look
	subreaper bool
	listed    int   // the list of our first thread's children once we are one, or -1
	reaping   bool  // orphans are
	own       peak  // our own size
	remains   []int // descriptors of forgotten children, to be closed by bury
	dead      []int // pidfds of those that are to be reaped before that

	burial sync.Mutex // held by bury; taken before mu
	spare  [2][]int   // memory for remains and dead; guarded by burial

	flights flights // guarded by mu
	handed  bool    // something was given to another goroutine since the last Wait; guarded by mu
}

// child is a main process, and after its end what is left of its tree. All
// fields are guarded by Pool.mu.
type child struct {
	token Token
	pid   int
	pidfd int    // -1 once nothing more can be asked of the process
	id    uint64 // its key in watches while the main process is not reaped
	place Place  // with the cgroup that it was really started in
	files slotFiles
	tree  tree
	// ended: the main process was reaped.
	ended    bool
	prompt   bool           // it is to be reaped at once
	unreaped bool           // but for the kernel's part in that, see collect
	flight   *flight        // it is on the way to its program, or nobody looked yet
	ooms     uint64         // OOM kills in its cgroup before it was started
	killed   bool           // SIGKILL was sent to its tree by cgroup.kill
	vacant   time.Duration  // when its cgroup was seen to be fit for another child; 0: it was not
	reported bool           // Exited was queued
	signals  int            // orders for its tree that are not carried out
	fifo     string         // of a direct start without a cgroup, or what could have been one
	maker    int            // without a cgroup: the thread of ours that made it, 0 if that is gone
	survivor bool           // not ours to wait for, see survivor.go
	givenUp  bool           // its status
	exit     Event          // Exited, until it is queued
	watched  map[uint64]int // descriptors that tell of the rest of the tree, by watch id
}

// wakeID is the name of the eventfd in the epoll set.
const wakeID = 0

// ErrClosed is returned by methods of a Pool after Close.
var ErrClosed = errors.New("spawn: pool is closed")

// New makes a Pool and starts its goroutines. The caller should have room for
// Options.Spawners further threads: see Prewarm. Only where starts fall back to
// syscall.ForkExec, whose vfork keeps its P, would GOMAXPROCS have to be larger
// by Options.Spawners than Go makes it.
func New(o Options) (*Pool, error) { return newPool(o, nil) }

// newPool is New with a hook that changes the Pool before it is used.
func newPool(o Options, hook func(*Pool)) (_ *Pool, err error) {
	if o.Spawners <= 0 {
		o.Spawners = 2
	}
	if o.TouchTimeout <= 0 {
		o.TouchTimeout = 4 * time.Second
	}
	if o.Step == nil {
		o.Step = func(string) {}
	}
	p := &Pool{
		timeout:  o.TouchTimeout,
		identify: o.Identify,
		step:     o.Step,
		clock:    NewClock(),
		ep:       -1,
		wakefd:   -1,
		listed:   -1,
		flights:  flights{low: o.Low},
		want:     o.Spawners,
		spawners: make(map[*spawner]struct{}),
		stuck:    make(map[string]int),
		children: make(map[Token]*child),
		mains:    make(map[int]*child),
		kept:     make(map[string]keptCgroup),
		vacated:  make(map[string]bool),
		watches:  make(map[uint64]*child),
		stir:     make(chan struct{}, 1),
		sigchld:  make(chan os.Signal, 1),
	}
	p.work.L, p.idle.L = &p.mu, &p.mu
	p.touch = p.touchFile
	p.ended = exitStatus
	p.keeps = sync.OnceValue(keepsStatus)
	defer func() {
		if err != nil {
			p.closeFDs()
		}
	}()
	if p.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("create epoll set: %w", err)
	}
	if p.wakefd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	if err = p.arm(wakeID, p.wakefd, unix.EPOLLIN|unix.EPOLLET); err != nil {
		return nil, fmt.Errorf("watch eventfd: %w", err)
	}
	p.reserve.take()
	p.mostHeld = mayBeHeld(maxDescriptors())
	p.exact = haveGroupSignal()
	p.ignored = ignoredSignals()
	if ownOOMScoreAdj() < 0 {
		p.oom = new(int)
	}
	p.fork = !haveClone3()
	if !p.fork {
		if p.orig, err = originalLimit(); err != nil {
			p.fork = true // syscall.ForkExec knows the limit
		}
	}
	if hook != nil {
		hook(p)
	}
	if err = p.makeFlights(); err != nil {
		return nil, fmt.Errorf("take descriptors: %w", err)
	}
	if o.OwnSIGCHLD {
		p.muteSIGCHLD()
	}
	if os.Getpid() == 1 || isSubreaper() {
		p.adoptOrphans() // they come whether wanted or not
	}
	p.expect(1)
	p.done.Add(1)
	go p.walk()
	p.mu.Lock()
	defer p.mu.Unlock()
	for range o.Spawners {
		p.addSpawner()
	}
	return p, nil
}

// Close ends the goroutines of the Pool and closes its descriptors. Children
// go on; nothing watches them any more. Queued starts are forgotten. No Wait may be under way.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.ground() // the memory of those on the way is ours
	p.queue.clear()
	p.work.Broadcast()
	p.idle.Broadcast()
	p.wakeWalker()
	p.unmuteSIGCHLD()
	p.mu.Unlock()
	signal.Stop(p.sigchld)
	p.done.Wait()

	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.children {
		p.forget(c)
	}
	for path := range p.kept {
		p.discard(path)
	}
	p.mu.Unlock()
	p.bury()
	p.mu.Lock()
	p.closeFDs()
}

func (p *Pool) closeFDs() {
	p.reserve.give()
	p.flights.close()
	for _, fd := range []*int{&p.ep, &p.wakefd, &p.listed} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

// Start starts s as token, or has that done. It never blocks on a file system, or on
// what a child does; Started or StartFailed follows. On a closed Pool nothing happens.
func (p *Pool) Start(token Token, s *Spec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.reaping = true
	p.expect(len(p.children) + p.queue.len() + 1)
	if s.Place.Cgroup == "" {
		p.adoptOrphans()
	}
	direct := p.startDirect(token, s)
	delete(p.vacated, s.Stdout.Path)
	if !direct {
		// What is left to bury may count against a limit on processes.
		for _, pidfd := range p.dead {
			_, _, _ = waitNow(pidfd, 0)
		}
		if len(p.dead) > 0 {
			p.reaped()
		}
		p.remains, p.dead = append(p.remains, p.dead...), p.dead[:0]
		p.enqueue(job{token: token, spec: s})
	}
}

// enqueue gives a job to the spawners. p.mu is held.
func (p *Pool) enqueue(j job) {
	if p.live == 0 { // as many hang as may
		p.emit(failed(j.token, &StartError{Op: "clone", Errno: syscall.EAGAIN}))
		return
	}
	p.queue.push(j)
	p.work.Signal()
	p.handed = true
}

// Events appends all events that happened since the last call to dst, in
// order: for each token Started or StartFailed, then Exited, then TreeEmpty; a
// TreeSignaled for each SignalTree in between.
func (p *Pool) Events(dst []Event) []Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	dst = append(dst, p.events...)
	clear(p.events)
	p.events = p.events[:0]
	return dst
}

// emit queues an event. p.mu is held.
func (p *Pool) emit(e Event) {
	if e.At == 0 {
		e.At, e.Wall = p.clock.Now()
	}
	p.events = append(p.events, e)
	if e.Kind != Started || !p.brief {
		p.kick()
	}
}

// started says that a child runs its program.
func started(c *child, withIdentity bool) Event {
	e := Event{Kind: Started, Token: c.token, PID: c.pid, Cgroup: c.place.Cgroup}
	if withIdentity {
		if id, err := identify(c.pid, c.pidfd); err == nil {
			e.Identity = &id
		}
	}
	return e
}

func failed(t Token, err *StartError) Event {
	return Event{Kind: StartFailed, Token: t, Err: err}
}

// Child is a process of the Pool, as Children lists it and Adopt takes it.
type Child struct {
	Token Token
	PID   int
	// PidFD belongs to the Pool, and is close-on-exec. It is -1 if Reaped.
	PidFD int
	// Reaped: the exit of the main process was reported, the rest of its tree
	// lives.
	Reaped bool
	// Survivor: it was not this process that started it, see [Pool.Adopt]. Of one that is
	// Reaped nobody but the caller knows.
	Survivor bool
	// Place is where it was started: the Cgroup is the one that it is in.
	Place Place
}

// Children lists what the Pool watches, in no order. To hand it over through
// execve(2): Pause, Events, Children, clear close-on-exec on each PidFD, and
// in the new image Adopt.
func (p *Pool) Children() []Child {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := make([]Child, 0, len(p.children))
	for _, c := range p.children {
		l = append(l, Child{Token: c.token, PID: c.pid, PidFD: c.pidfd, Reaped: c.reported, Place: c.place, Survivor: c.survivor})
	}
	return l
}

// Leftovers returns descriptors that are of no use to the next image and take long to be closed, which
// can wait until that image has the time: the epoll set, of which the kernel takes out
// one child after the other, and what is open of places. They are the Pool's, and close-on-exec. It is
// called between Pause and Resume, when no other goroutine closes any of them.
func (p *Pool) Leftovers() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]int, 0, 1+3*(len(p.children)+len(p.kept)))
	add := func(fds ...int) {
		for _, fd := range fds {
			if fd >= 0 {
				list = append(list, fd)
			}
		}
	}
	add(p.ep)
	for _, c := range p.children {
		add(c.files.dir, c.files.events, c.files.out)
	}
	for _, k := range p.kept {
		add(k.files.dir, k.files.events, k.files.out)
	}
	return list
}

// add makes a child known and watched. p.mu is held until the caller has
// queued Started, so that Wait, which needs it too, cannot be faster.
func (p *Pool) add(token Token, pid, pidfd int, place Place, files slotFiles) (*child, error) {
	c := &child{token: token, pid: pid, pidfd: pidfd, place: place, files: files}
	c.tree = p.newTree(c)
	if pidfd >= 0 {
		c.id = p.newID()
		if err := p.arm(c.id, pidfd, unix.EPOLLIN|unix.EPOLLET); err != nil {
			return nil, err
		}
		p.watches[c.id] = c
	}
	p.children[token] = c
	p.mains[pid] = c
	return c, nil
}

// watch is add for a child that was just made. One that cannot be watched, so that nobody
// would learn of its exit, is ended, and has failed to start: then it returns nil. p.mu is held.
func (p *Pool) watch(token Token, pid, pidfd int, place Place, files slotFiles) *child {
	c, err := p.add(token, pid, pidfd, place, files)
	if err != nil {
		endNow(pidfd)
		p.close(&files)
		p.emit(failed(token, &StartError{Op: "watch", Errno: errnoOf(err)}))
		return nil
	}
	return c
}

// forget drops a child and all that is open for it. p.mu is held: a signal,
// which is sent with p.mu held too, can not go to a descriptor's next owner.
// Whoever calls it calls bury when p.mu is free again.
func (p *Pool) forget(c *child) {
	delete(p.children, c.token)
	if p.mains[c.pid] == c {
		delete(p.mains, c.pid)
	}
	delete(p.watches, c.id)
	switch {
	case c.unreaped:
		p.dead = append(p.dead, c.pidfd)
	case c.pidfd >= 0:
		p.remains = append(p.remains, c.pidfd)
	}
	if c.fifo != "" {
		if len(p.vacated) >= maxHeld {
			clear(p.vacated)
		}
		p.vacated[c.fifo] = true
	}
	p.keep(c)
	p.unwatch(c)
}

// bury reaps children that were forgotten, and closes their descriptors. It is not done
// in forget, because whoever was told of an exit, and decides on a restart, need
// not wait for it. A pidfd leaves the epoll set with its last copy; a child
// between clone and execve may have one, which tells nobody anything.
func (p *Pool) bury() {
	p.burial.Lock()
	defer p.burial.Unlock()
	p.mu.Lock()
	remains, dead := p.remains, p.dead
	p.remains, p.dead = p.spare[0][:0], p.spare[1][:0]
	listed := p.subreaper // the list of our children is not to shift while it is read
	if !listed {
		p.mu.Unlock()
	}
	for _, pidfd := range dead {
		_, _, _ = waitNow(pidfd, 0)
		closeRaw(pidfd)
	}
	if listed {
		p.reaped()
		p.mu.Unlock()
	}
	for _, fd := range remains {
		closeRaw(fd)
	}
	p.spare = [2][]int{remains, dead}
}

// unwatch closes what tells of the rest of the tree of c. p.mu is held.
func (p *Pool) unwatch(c *child) {
	if len(c.watched) == 0 {
		return
	}
	for id, fd := range c.watched {
		p.disarm(id, fd)
		unix.Close(fd)
	}
	c.watched = nil
}

func (p *Pool) newID() uint64 {
	p.lastID++
	return p.lastID
}

// arm adds fd to the epoll set under a name of its own. Edge-triggered: an end
// is reported once, also one from before, and a process that nobody reaps yet
// costs nothing.
func (p *Pool) arm(id uint64, fd int, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(uint32(id)), Pad: int32(id >> 32)}
	return unix.EpollCtl(p.ep, unix.EPOLL_CTL_ADD, fd, &ev)
}

// disarm takes fd out of the epoll set, and forgets its name.
func (p *Pool) disarm(id uint64, fd int) {
	delete(p.watches, id)
	leave(p.ep, fd)
}

// leave takes fd out of the epoll set. That must come before the close: a
// child between clone and exec may hold a copy of fd that would keep it in.
func leave(ep, fd int) {
	// The only errors are of a descriptor that was never added.
	_ = unix.EpollCtl(ep, unix.EPOLL_CTL_DEL, fd, nil)
}
