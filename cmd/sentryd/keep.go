package main

import (
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/api"
	"github.com/sentryd/sentryd/pkg/fdstore"
	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/supervisor"
)

// This file is where a service manager keeps descriptors, as systemd does, and hears
// when the daemon is ready.

// keeping is what the service manager keeps.
type keeping struct {
	store *fdstore.Store // nil without a service manager
	found []fdstore.Kept // what it passed to this daemon
	left  supervisor.KeptFDs
	pipes []int // held until they are opened by their path
}

// inheritKept takes what the manager kept. It comes before the first descriptor is
// passed on.
func (k *keeping) inheritKept() {
	k.left = supervisor.KeptFDs{Pidfds: make(map[uint64]int), Sockets: make(map[uint64]int)}
	k.found = fdstore.Inherit()
	for _, f := range k.found {
		switch f.Kind {
		case fdstore.Pidfd:
			k.left.Pidfds[f.Number] = f.FD
		case fdstore.Socket:
			k.left.Sockets[f.Number] = f.FD
		default:
			k.pipes = append(k.pipes, f.FD)
		}
	}
}

// openStore begins to tell the manager. saved is nil unless this is another image of
// the same daemon.
func (d *daemon) openStore(saved *state.Daemon) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	o := fdstore.Options{Socket: socket, Failed: d.notKept}
	o.Max, _ = strconv.Atoi(os.Getenv("FDSTORE")) // what is no number keeps nothing
	for _, f := range d.found {
		o.Kept = append(o.Kept, f.Name)
	}
	if saved != nil {
		o.Kept = saved.Kept
	}
	var err error
	if d.store, err = fdstore.New(o); err != nil {
		d.notKept(err)
	}
}

// notKept is told of what the manager refused.
func (d *daemon) notKept(err error) {
	go func() {
		<-d.serving.started
		d.serving.sup.NotKept(err)
	}()
}

// keeper is the supervisor's view of the store, which knows no nil pointer.
func (d *daemon) keeper() supervisor.Keeper {
	if d.store == nil {
		return nil
	}
	return d.store
}

// settleKept lets go of what nobody asked for: it is of processes that are no more.
func (d *daemon) settleKept() {
	for _, fd := range d.pipes {
		unix.Close(fd)
	}
	for _, list := range []map[uint64]int{d.left.Pidfds, d.left.Sockets} {
		for _, fd := range list {
			unix.Close(fd)
		}
	}
	d.pipes, d.left = nil, supervisor.KeptFDs{}
	if d.store != nil {
		d.keepListeners()
		d.store.Sweep()
	}
}

// keepListeners has the sockets kept on which is listened over TCP. The control
// socket has a path, and who connected to it is gone.
func (d *daemon) keepListeners() {
	if d.store == nil {
		return
	}
	files, err := d.serving.listeners.Files()
	if err != nil {
		d.output.Logger().Warn("the sockets that are listened on are not kept", "error", err)
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name, api.HTTPPrefix) {
			d.store.Keep(f.FD)
		}
	}
}

// takeListener returns a socket that the manager kept and that is bound to a TCP
// address as it is configured.
func (k *keeping) takeListener(address string) (fd int, ok bool) {
	want, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return -1, false
	}
	for cookie, fd := range k.left.Sockets {
		at, err := unix.Getsockname(fd)
		if listens, err2 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || err2 != nil || listens == 0 {
			continue
		}
		var is net.TCPAddr
		switch at := at.(type) {
		case *unix.SockaddrInet4:
			is = net.TCPAddr{IP: at.Addr[:], Port: at.Port}
		case *unix.SockaddrInet6:
			is = net.TCPAddr{IP: at.Addr[:], Port: at.Port}
		default:
			continue
		}
		if is.Port == want.Port && (is.IP.Equal(want.IP) || len(want.IP) == 0 && is.IP.IsUnspecified()) {
			delete(k.left.Sockets, cookie)
			return fd, true
		}
	}
	return -1, false
}

// sayReady tells the manager that the configuration is applied and what lived is
// taken over.
func (d *daemon) sayReady() {
	if d.store != nil {
		d.store.Notify("READY=1")
	}
}
