package api

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
)

// ListenerFile is a listening socket under the name by which [Listeners.Inherit]
// knows it again. The descriptor is owned by the Listeners.
type ListenerFile struct {
	Name string
	FD   int
}

// Prefixes of the names of a ListenerFile.
const (
	// HTTPPrefix is before a TCP address as it is configured.
	HTTPPrefix    = "http:"
	controlPrefix = "control:"
)

// Inherit takes over a descriptor of that name from [Listeners.Files] of the
// image before. Call it before Control and TCP, which then use it instead of
// binding anew. The descriptor is closed in any case; what is kept is a
// duplicate.
func (l *Listeners) Inherit(name string, fd int) error {
	f := os.NewFile(uintptr(fd), name)
	if f == nil {
		return fmt.Errorf("inherit listener %s: %w", name, syscall.EBADF)
	}
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("inherit listener %s: %w", name, err)
	}
	_, isUnix := ln.(*net.UnixListener)
	_, isTCP := ln.(*net.TCPListener)
	if !(isUnix && strings.HasPrefix(name, controlPrefix)) && !(isTCP && strings.HasPrefix(name, HTTPPrefix)) {
		ln.Close()
		return fmt.Errorf("inherit listener %s: it is a socket of another kind", name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if old := l.inherited[name]; old != nil {
		old.Close()
	}
	l.inherited[name] = ln
	return nil
}

func (l *Listeners) claim(name string) net.Listener {
	ln := l.inherited[name]
	delete(l.inherited, name)
	return ln
}

// Reserve binds those of the addresses that are not listened on, for the next
// image: they are not served, but among Files. It is all or nothing. If the
// re-exec fails, release gives them up.
func (l *Listeners) Reserve(addresses []string) (release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var reserved []*listener
	var errs []error
	for _, address := range addresses {
		name := HTTPPrefix + address
		same := func(it *listener) bool { return it.name == name }
		if slices.ContainsFunc(l.list, same) || slices.ContainsFunc(reserved, same) {
			continue
		}
		ln, err := net.Listen("tcp", address)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		reserved = append(reserved, &listener{name: name, address: address, ln: ln, reserved: true})
	}
	if err := errors.Join(errs...); err != nil {
		for _, it := range reserved {
			it.ln.Close()
		}
		return nil, err
	}
	l.list = append(l.list, reserved...)
	return func() { l.release(reserved) }, nil
}

func (l *Listeners) release(reserved []*listener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = slices.DeleteFunc(l.list, func(it *listener) bool {
		if !it.reserved || !slices.Contains(reserved, it) {
			return false
		}
		it.ln.Close()
		return true
	})
}

// Files returns the bound sockets, for a hand-over through execve(2). The
// descriptors are close-on-exec and stay valid until TCP or Close is called.
func (l *Listeners) Files() ([]ListenerFile, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var files []ListenerFile
	for _, it := range l.list {
		if it.ln == nil {
			continue
		}
		raw, err := it.ln.(syscall.Conn).SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { files = append(files, ListenerFile{it.name, int(fd)}) })
		}
		if err != nil {
			return nil, fmt.Errorf("descriptor of listener %s: %w", it.address, err)
		}
	}
	return files, nil
}
