package api

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"

	"github.com/sentryd/sentryd/pkg/peer"
)

// owner tells who owns the client's socket of one TCP connection, each time
// anew. It is what the server needs of [peer.Client].
type owner interface {
	UID() (uint32, error)
}

// peers asks the kernel who is at the other end of an accepted connection.
type peers struct {
	unix func(syscall.Conn) (peer.Cred, error)
	tcp  func(syscall.Conn) (owner, error)
}

var kernelPeers = peers{
	unix: peer.Unix,
	tcp:  func(c syscall.Conn) (owner, error) { return peer.TCP(c) },
}

// conn is an accepted connection and what was known about its other end then.
type conn struct {
	net.Conn
	pool *pool
	via  *door

	cred  peer.Cred // control socket
	owner owner     // loopback TCP
	err   error     // why neither is known

	privileged bool // counts among those who have the right
}

// Close closes the connection and makes room in its pool. It may be called
// more than once.
func (c *conn) Close() error {
	c.pool.release(c)
	return c.Conn.Close()
}

// CloseWrite ends our half of the connection. net/http uses it to have an error
// answer arrive although the client still sends.
func (c *conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return nil
}

// identify asks who is at the other end, at accept: on TCP the answer is
// compared with later ones.
func (c *conn) identify(p peers, permit *Permit) {
	sc, ok := c.Conn.(syscall.Conn)
	switch {
	case !ok:
		c.err = net.ErrClosed
	case c.via.control:
		if c.cred, c.err = p.unix(sc); c.err == nil {
			c.privileged = permit.cred(c.cred)
		}
	case c.via.loopback.IsValid():
		c.owner, c.err = p.tcp(sc)
	}
}

type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

func connOf(r *http.Request) *conn {
	return r.Context().Value(connKey{}).(*conn)
}

// authorize returns the user whose right a request is done with, or refuses
// it. Call it only when the whole request has been read: until then a client on
// TCP can close its socket, or pass the port on, without the request being
// incomplete.
func (s *Server) authorize(r *http.Request) (uid uint32, err error) {
	c := connOf(r)
	if c.via.control {
		if c.err != nil || !s.permit.cred(c.cred) {
			return 0, problemf(http.StatusForbidden, "only root, the daemon's user and those named in `control` may do this")
		}
		return c.cred.UID, nil
	}
	if !c.via.loopback.IsValid() {
		return 0, problemf(http.StatusForbidden, "this address is read-only because it is not a loopback address; use the control socket")
	}
	if name := forwarded(r.Header); name != "" {
		// A proxy's user says nothing about the one it speaks for.
		return 0, problemf(http.StatusForbidden, "the request was forwarded (header %s); it must come from its user directly", name)
	}
	if c.err != nil {
		return 0, problemf(http.StatusForbidden, "cannot tell whose connection this is: %v", c.err)
	}
	uid, err = c.owner.UID()
	if err != nil {
		return 0, problemf(http.StatusForbidden, "cannot tell whose connection this is: %v", err)
	}
	if !s.permit.user(uid) {
		return 0, problemf(http.StatusForbidden, "only root, the daemon's user and those named in `control.users` may do this")
	}
	return uid, nil
}

// forwarded returns the name of a header that says that a proxy sent the
// request on, or "". An empty header says so too.
func forwarded(h http.Header) string {
	for name := range h {
		switch {
		case name == "Forwarded", name == "X-Real-Ip", name == "Via", strings.HasPrefix(name, "X-Forwarded-"):
			return name
		}
	}
	return ""
}

// door is a listening socket as far as rights are concerned.
type door struct {
	name     string     // for people
	control  bool       // the control socket
	loopback netip.Addr // the address, when it is TCP on a loopback one
}

func doorOf(a net.Addr) *door {
	d := &door{name: a.String()}
	switch a := a.(type) {
	case *net.UnixAddr:
		d.control = true
	case *net.TCPAddr:
		if ip := a.AddrPort().Addr().Unmap(); ip.IsLoopback() {
			d.loopback = ip.WithZone("")
		}
	}
	return d
}
