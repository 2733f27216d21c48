package spawn

import (
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// target is a Spec with its program found.
type target struct {
	path string // for execve, after chdir to dir
	dir  string
	args []string
	env  []string // but for last and LISTEN_PID
	last string   // Spec.EnvLast
	// passed are the descriptors, all above 2, that become 3, 4, …
	passed []int
	listen bool        // LISTEN_PID belongs into the environment
	attr   *Attributes // nil: none
	oom    *int        // oom_score_adj, nil: ours
	// missing is an interpreter that the program needs and that is not there.
	missing string
	cgroup  string // that it is cloned into, or ""
	ooms    uint64 // OOM kills in it before, where it has settings
	limited bool   // its memory may be
	looked  bool   // our RLIMIT_NOFILE was seen to be Go's, see origLimit
}

// fill takes over from a Spec what needs no looking for. oom is for one that asks for
// none.
func (t *target) fill(s *Spec, oom *int) {
	*t = target{dir: s.Dir, args: s.Args, env: s.Env, last: s.EnvLast, attr: s.Attributes, oom: oom}
	if len(t.args) == 0 {
		t.args = []string{s.Path}
	}
	if t.attr != nil && t.attr.OOMScoreAdj != nil {
		t.oom = t.attr.OOMScoreAdj
	}
}

// explain names the interpreter where execve(2) says ENOENT of a program that
// is there.
func (t *target) explain(err *StartError) *StartError {
	if err.Op == "exec" && err.Errno == syscall.ENOENT && t.missing != "" {
		return &StartError{Op: "interpreter", Path: t.missing, Errno: err.Errno}
	}
	return err
}

// defaultPath is where a program is looked for if Env has no PATH.
const defaultPath = "/usr/local/bin:/usr/bin:/bin"

// lookup finds the program of s in the PATH of the child, as execvp(3) would: the first regular
// file that may be executed; if there is none, one that may not is EACCES.
func (sp *spawner) lookup(s *Spec) (path string, err *StartError) {
	if s.Path == "" {
		return "", &StartError{Op: "lookup", Errno: syscall.ENOENT}
	}
	if strings.IndexByte(s.Path, '/') >= 0 {
		return s.Path, nil
	}
	dirs := defaultPath
	for _, kv := range s.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			dirs = v // the last one counts, as it does for os/exec
		}
	}
	denied := ""
	for _, dir := range filepath.SplitList(dirs) {
		if dir == "" {
			dir = "." // as in every shell
		}
		file := dir + "/" + s.Path
		seen := abs(s.Dir, file)
		if err := sp.goNear(&seen); err != nil {
			return "", err
		}
		switch executable(seen) {
		case 0:
			return file, nil
		case syscall.EACCES, syscall.EPERM:
			if denied == "" {
				denied = file
			}
		}
	}
	if denied != "" {
		return "", &StartError{Op: "lookup", Path: denied, Errno: syscall.EACCES}
	}
	return "", &StartError{Op: "lookup", Path: s.Path, Errno: syscall.ENOENT}
}

// executable says whether path is a file that could be executed by us. For a
// child under another user that is no more than a guess, and a right one as a
// rule if we are root: a file that nobody may execute root may not either.
// What that user may not is said by execve(2).
func executable(path string) syscall.Errno {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return errnoOf(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return syscall.EACCES
	}
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS); err != nil {
		return errnoOf(err)
	}
	return 0
}

// errnoOf returns the errno of an error that came from a system call.
func errnoOf(err error) syscall.Errno {
	if e, ok := err.(syscall.Errno); ok {
		return e
	}
	return syscall.EIO
}

// abs returns path as seen from dir.
func abs(dir, path string) string {
	if dir == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
