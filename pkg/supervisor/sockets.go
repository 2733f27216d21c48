package supervisor

import (
	"context"
	"fmt"
	"os"

	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/sockets"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
	"github.com/sentryd/sentryd/pkg/view"
)

// This file is where the sockets of an entry meet its processes. A socket is
// opened for the first start that needs it, or in the preflight of the reload
// that brings its address, and stays open until no entry has that address: over
// exits, stops and re-execs. The machine knows nothing of it: a socket that
// cannot be opened is a start that failed. A file system is never waited for here:
// what it is asked goes out with a start, which goes on when the answer comes.

// Sockets is what the supervisor needs of pkg/sockets. It belongs to the owner
// goroutine.
type Sockets interface {
	Open(list []sockets.Want, then func(fds []int, opened bool, err error))
	Notify(wake func())
	Ready() <-chan struct{}
	Take()
	Block(spec *sockets.Spec, index int) error
	Drop(spec *sockets.Spec, index int)
	Retain(specs []*sockets.Spec)
	Records() []sockets.Record
	Inherit(sockets.Record) error
	Close()
}

// SocketPrefix is before the names under which the listening ones are handed
// over.
const SocketPrefix = state.KindListener + ":entry:"

// The rest is before the names of the others.
const datagramPrefix = state.KindSocket + ":entry:"

func socketName(k sockets.Key) string {
	if k.Network == sockets.UDP {
		return datagramPrefix + k.String()
	}
	return SocketPrefix + k.String()
}

// passedSocket is a socket of an entry, and what its processes know it by.
type passedSocket struct {
	name string
	spec *sockets.Spec
}

// passedSockets is the sockets of an entry in the order of the configuration.
func passedSockets(e *config.Entry) []passedSocket {
	out := make([]passedSocket, 0, len(e.Sockets))
	uid, gid := socketOwner(e)
	for _, s := range e.Sockets {
		out = append(out, passedSocket{s.Name, &sockets.Spec{
			Network: s.Network, Address: s.Address, Mode: s.Mode, ReusePort: s.ReusePort, UID: uid, GID: gid,
		}})
	}
	return out
}

// socketOwner is the user that an entry runs as, and so that its sockets belong
// to.
func socketOwner(e *config.Entry) (uid, gid int) {
	if e.Identity != nil {
		return int(e.Identity.UID), int(e.Identity.GID)
	}
	return os.Geteuid(), os.Getegid()
}

// openSockets has the sockets of a child opened, and launches it then.
func (s *Supervisor) openSockets(c *child, spec *spawn.Spec, list []passedSocket) {
	wants := make([]sockets.Want, 0, len(list))
	for _, p := range list {
		wants = append(wants, sockets.Want{Spec: p.spec, Index: c.id.Slot})
		spec.ListenNames = append(spec.ListenNames, p.name)
	}
	s.Sockets.Open(wants, func(fds []int, opened bool, err error) {
		if opened {
			s.scribe.own = true // a socket of which only this child would tell
			s.keepSockets()
		}
		if s.children[c.token] != c {
			return // given up meanwhile
		}
		if err == nil {
			err = s.unblock(c.id, list)
		}
		if err != nil {
			s.notLaunched(c, err)
			return
		}
		spec.Files = fds
		s.launch(c, spec)
	})
}

// unblock has those sockets block again of which nobody else has any.
func (s *Supervisor) unblock(id fsm.ID, list []passedSocket) error {
	alone := s.begun[id.Entry] == 0
	for _, p := range list {
		if alone || p.spec.ReusePort {
			if err := s.Sockets.Block(p.spec, id.Slot); err != nil {
				return err
			}
		}
	}
	return nil
}

// takeSockets takes in what file systems have answered.
func (s *Supervisor) takeSockets() {
	s.Sockets.Take()
	s.decideLocal()
	s.act()
}

// dropSockets closes what was the slot's alone, unless its entry has gone: its
// address may be another's by now.
func (s *Supervisor) dropSockets(entry string, slot int) {
	e := s.config.Entry(entry)
	if e == nil {
		return
	}
	for _, p := range s.launchers[entry].sockets {
		if p.spec.ReusePort {
			s.Sockets.Drop(p.spec, slot)
		}
	}
	s.keepSockets()
}

// retainSockets closes what the configuration does not have any more.
func (s *Supervisor) retainSockets() {
	var wanted []*sockets.Spec
	for _, e := range s.config.Entries {
		for _, p := range s.launchers[e.Name].sockets {
			wanted = append(wanted, p.spec)
		}
	}
	s.Sockets.Retain(wanted)
	s.keepSockets()
}

// reserveSockets opens what the next configuration has and the present one has
// not, for the next image.
func (s *Supervisor) reserveSockets(ctx context.Context, next *config.Config) error {
	done := make(chan error, 1)
	if err := s.ask(ctx, func() { s.reserve(s.missing(next), done) }); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-s.ended:
		return view.Errorf(view.Unavailable, "the daemon has stopped")
	}
}

// newSocket is one that a reload brings.
type newSocket struct {
	passedSocket
	of *config.Entry
}

func (s *Supervisor) missing(next *config.Config) (list []newSocket) {
	present := make(map[config.Socket]bool)
	bound := func(c config.Socket) config.Socket {
		return config.Socket{Network: c.Network, Address: c.Address, ReusePort: c.ReusePort}
	}
	for _, e := range s.config.Entries {
		for _, c := range e.Sockets {
			present[bound(c)] = true
		}
	}
	for _, e := range next.Entries {
		for i, p := range passedSockets(e) {
			// One that is in the present configuration and not open is one that no
			// start needed yet, or that is being tried again.
			if present[bound(e.Sockets[i])] || p.spec.ReusePort && e.Count == 0 {
				continue
			}
			list = append(list, newSocket{p, e})
		}
	}
	return list
}

// reserve opens one after the other, up to the first that cannot be.
func (s *Supervisor) reserve(list []newSocket, done chan<- error) {
	if len(list) == 0 {
		done <- nil
		return
	}
	n := list[0]
	// One that fails too: its file system may do later what it was asked.
	s.reserved = append(s.reserved, n.spec)
	s.Sockets.Open([]sockets.Want{{Spec: n.spec}}, func(_ []int, _ bool, err error) {
		if err != nil {
			s.release()
			done <- fmt.Errorf("%s:%d: entries.%s.sockets: %s: %w", n.of.File, n.of.Line, n.of.Name, n.name, err)
			return
		}
		s.reserve(list[1:], done)
	})
}

// release closes what reserve opened.
func (s *Supervisor) release() {
	for _, spec := range s.reserved {
		s.Sockets.Drop(spec, 0)
	}
	s.reserved = nil
}

// saveSockets names the open sockets for the next image.
func (s *Supervisor) saveSockets() (saved []state.Socket, files []state.File) {
	for _, r := range s.Sockets.Records() {
		saved = append(saved, state.Socket{
			Network: r.Network, Address: r.Address, ReusePort: r.ReusePort, Index: r.Index,
			Cookie: r.Cookie, Dev: r.Dev, Ino: r.Ino,
		})
		files = append(files, state.File{Name: socketName(r.Key), FD: r.FD})
	}
	return saved, files
}

// adoptSockets takes over the sockets of the former image. One that did not
// arrive is opened anew at the next start.
func (s *Supervisor) adoptSockets(saved []state.Socket, files map[string]int) {
	for _, x := range saved {
		r := sockets.Record{
			Key:    sockets.Key{Network: x.Network, Address: x.Address, ReusePort: x.ReusePort, Index: x.Index},
			Cookie: x.Cookie, Dev: x.Dev, Ino: x.Ino,
		}
		name := socketName(r.Key)
		fd, ok := files[name]
		delete(files, name)
		err := fmt.Errorf("it was not handed over")
		if ok {
			r.FD = fd
			err = s.Sockets.Inherit(r)
		}
		if err != nil {
			s.Log.Error("a socket could not be taken over", "socket", r.Key.String(), "error", err)
		}
	}
}
