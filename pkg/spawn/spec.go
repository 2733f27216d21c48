package spawn

// Token is the caller's name for one incarnation of a child. It must be unique
// for the life of the Pool: a token that was used once, for a start that
// failed too, must not be used again. Unlike a pid it is never reused, so an
// event or a signal can not reach the wrong process.
type Token uint64

// Spec says what to start. The Pool keeps a pointer to it until the start has
// been reported; the caller must not change it meanwhile, but may use one Spec
// for many starts.
type Spec struct {
	// Path names the program. Without a '/' it is looked up in the PATH of Env
	// (in /usr/local/bin:/usr/bin:/bin if Env has none). A relative Path with a '/', and a relative
	// element of PATH, is relative to Dir.
	Path string
	// Args is the argument vector, argv[0] included. Empty means {Path}.
	Args []string
	// Env is the whole environment of the child, as "KEY=value". Nothing is
	// added to it but EnvLast, if that is not "", and what ListenNames asks for.
	Env []string
	// EnvLast is one more string of it, where starts differ in that one alone: they may
	// share Env. It is neither PATH nor one of those of sd_listen_fds(3).
	EnvLast string
	// Dir is the child's working directory; "" is the caller's.
	Dir string

	Stdin, Stdout, Stderr Stdio

	// Attributes are who the child is and what it may use; nil: as this process.
	Attributes *Attributes

	// Files are descriptors of the caller's that the child gets as 3, 4, … in
	// this order, not close-on-exec. The child shares the open file
	// descriptions. They must stay open until the start was reported.
	Files []int
	// ListenNames, when not nil, has a name for each of Files, and the child
	// gets LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID (its own pid) in its
	// environment, as sd_listen_fds_with_names(3) reads them, in place of any
	// in Env. A name must not contain a ':'. It needs clone3(2): without, the
	// start fails with ENOSYS.
	ListenNames []string
	Place       Place
}

// Place says how what descends from a child is told from everything else.
type Place struct {
	// Cgroup is the path of a cgroup v2 directory, made if it is not there,
	// that the child is cloned into: then its tree is whatever lives in that
	// cgroup, exactly. If something lives there before, the child
	// gets another of that name with "~1", "~2" and so on added. One that
	// is frozen is a StartFailed. "" is none, which makes this process a
	// child subreaper: then its tree is what /proc shows below the child and
	// those orphans of it that can be told from others.
	Cgroup string
	// Settings are written to the Cgroup before the start.
	Settings []Setting
	// Marks are strings of the environment that no child with another tree has all of.
	// Without a Cgroup an orphan that left its session is recognised by them.
	Marks []string
	// Output is what the path begins with, up to its last dot, of what processes of the
	// place write to, and no others. Without a Cgroup who descends from a Survivor and has
	// left its session is recognised by that and the Marks.
	Output string
}

// Stdio says what one of the first three descriptors of a child refers to.
type Stdio struct {
	// Path is opened before the clone, just before it unless there is an ID, and closed after it, so the child
	// gets a file description of its own: a flag like O_NONBLOCK that a child
	// sets can not reach the next one. "" is /dev/null. Stdout and Stderr with
	// the same non-empty Path and Flags share one file description. A FIFO
	// should be opened O_RDWR: that waits for nobody, and its holder never
	// gets SIGPIPE.
	Path string
	// Dir is a descriptor of the directory that Path is in, where the caller has one: then
	// only the last element of Path is looked up, which is faster. 0 is none.
	Dir int
	// Flags are the flags of open(2); O_CLOEXEC and O_NOCTTY are added. A file
	// is created with mode 0600 if they contain O_CREAT.
	Flags int
	// ID is of the FIFO at Path, for who knows that: another one at the same path has another, and
	// so has the same with other Flags. Then it may have been opened for this child while the one
	// before it was running. 0 is none.
	ID uint64
}
