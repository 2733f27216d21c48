package state

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Inherited is what an image left to the next one with [Exec]. Its methods may be called
// from any goroutine.
//
// A descriptor is looked at when it is taken: there may be thousands, most of
// which are needed only after somebody is answered again. One that is closed, or is not
// what its name says, is not there for who takes it, and is left alone; Wrong tells.
type Inherited struct {
	// Saved is the state, nil when it could not be read.
	Saved *Saved

	mu    sync.Mutex
	files map[string]int
	wrong []error
}

// Wrong says which of the descriptors that were asked for are not there, or not what
// their names say.
func (i *Inherited) Wrong() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return errors.Join(i.wrong...)
}

// Take returns the descriptor of that name, which is the caller's from then
// on, and false when there is none.
func (i *Inherited) Take(name string) (fd int, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	fd, ok = i.files[name]
	delete(i.files, name)
	if !ok {
		return -1, false
	}
	f := File{name, fd}
	if err := verifyKind(f); err != nil {
		i.refuse(f, err)
		return -1, false
	}
	return fd, true
}

// refuse notes what is wrong with a descriptor. mu is held.
func (i *Inherited) refuse(f File, err error) {
	i.wrong = append(i.wrong, fmt.Errorf("inherit %q: %w", f.Name, err))
}

// TakeAll returns all descriptors that nobody has taken, by name. They are the
// caller's from then on.
func (i *Inherited) TakeAll() map[string]int {
	i.mu.Lock()
	defer i.mu.Unlock()
	list := make([]File, 0, len(i.files))
	for name, fd := range i.files {
		list = append(list, File{name, fd})
	}
	all := i.files
	i.files = nil
	for n, err := range verify(list) {
		if err != nil {
			i.refuse(list[n], err)
			delete(all, list[n].Name)
		}
	}
	return all
}

// Names returns the names that begin with prefix of the descriptors that nobody has
// taken, sorted. Not all of them need be there.
func (i *Inherited) Names(prefix string) []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var names []string
	for name := range i.files {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// CloseLeftovers closes what the former image handed over for that alone: an epoll set,
// say, of which the kernel takes a microsecond or two for each file that is in it, and would
// within execve(2) too.
func (i *Inherited) CloseLeftovers() {
	if i.Saved == nil {
		return
	}
	for _, fd := range i.Saved.Leftovers {
		unix.Close(fd)
	}
	i.Saved.Leftovers = nil
}

// Close closes the descriptors that nobody has taken, and the leftovers.
func (i *Inherited) Close() error {
	i.CloseLeftovers()
	var errs []error
	for name, fd := range i.TakeAll() {
		if err := unix.Close(fd); err != nil {
			errs = append(errs, fmt.Errorf("close %q: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Inherit returns what the image before this one left, and nil, nil when
// there was none. Call it once, early in main and after signal.Notify; it
// removes [Environ] from the environment, sets close-on-exec on every
// descriptor from 3 on and closes the one the state was in.
//
// With an error Saved is nil, as the state was unreadable: then all that the image
// before left open is closed, since nobody can tell what it is, and a lock would go with any of it.
// An image that gets an error goes on, as children may be running.
func Inherit() (*Inherited, error) {
	val, ok := os.LookupEnv(Environ)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(Environ); err != nil {
		return &Inherited{}, fmt.Errorf("inherit state: %w", err)
	}
	fd, err := strconv.Atoi(val)
	if err != nil || fd < 3 {
		err = fmt.Errorf("%s=%q is no descriptor", Environ, val)
		return &Inherited{}, fmt.Errorf("inherit state: %w", errors.Join(err, closeNameless()))
	}
	saved, err := ReadState(fd)
	if err != nil {
		return &Inherited{}, fmt.Errorf("inherit state: %w", errors.Join(err, closeNameless()))
	}
	unix.Close(fd)
	// 5.11+. Before, the named ones are set below, one by one; only when the
	// state is unreadable would the others then reach children.
	marked := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC) == nil

	if !marked {
		for _, fd := range saved.Leftovers {
			setCloexec(fd, true)
		}
		for _, f := range saved.Files {
			setCloexec(f.FD, true) // who takes it is told if it is not open
		}
	}
	inh := &Inherited{Saved: saved, files: make(map[string]int, len(saved.Files))}
	for _, f := range saved.Files {
		inh.files[f.Name] = f.FD
	}
	return inh, nil
}

// closeNameless closes what the image before left open: what has outlived execve is
// not close-on-exec, and all that this program opens is.
func closeNameless() error {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, name := range list {
		fd, err := strconv.Atoi(name.Name())
		if err != nil || fd < 3 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	return nil
}
