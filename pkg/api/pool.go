package api

import (
	"container/list"
	"net/http"
	"sync"
)

// pool bounds the connections of one listening socket. A connection that waits
// for a request gives way to a new one, so that idle ones, however many, keep
// nobody out; those who have no right can hold only a share.
type pool struct {
	max    int // connections
	others int // of them, at most this many of peers without the right

	mu         sync.Mutex
	open       map[*conn]*list.Element // the place in idle, nil while it is not idle
	openOthers int
	idle       list.List     // of *conn; the longest idle first
	waiting    int           // requests of others that are kept waiting
	onEmpty    chan struct{} // closed when the last connection is; nil before drained is called
}

func newPool(max, others int) *pool {
	return &pool{max: max, others: others, open: make(map[*conn]*list.Element)}
}

// admit takes a new connection in, at the cost of an idle one if need be, or
// reports that there is no room.
func (p *pool) admit(c *conn) bool {
	victim, ok := p.tryAdmit(c)
	if victim != nil {
		victim.Close()
	}
	return ok
}

func (p *pool) tryAdmit(c *conn) (victim *conn, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !c.privileged && p.openOthers >= p.others:
		victim = p.longestIdle(false)
	case len(p.open) >= p.max:
		if victim = p.longestIdle(false); victim == nil && c.privileged {
			victim = p.longestIdle(true)
		}
	default:
		p.add(c)
		return nil, true
	}
	if victim == nil {
		return nil, false
	}
	p.remove(victim)
	p.add(c)
	return victim, true
}

// longestIdle returns the connection that has been idle longest, of those with
// or without the right, or nil.
func (p *pool) longestIdle(privileged bool) *conn {
	for e := p.idle.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*conn); c.privileged == privileged {
			return c
		}
	}
	return nil
}

func (p *pool) add(c *conn) {
	p.open[c] = p.idle.PushBack(c)
	if !c.privileged {
		p.openOthers++
	}
}

func (p *pool) remove(c *conn) {
	e, ok := p.open[c]
	if !ok {
		return
	}
	if e != nil {
		p.idle.Remove(e)
	}
	delete(p.open, c)
	if !c.privileged {
		p.openOthers--
	}
	if p.onEmpty != nil && len(p.open) == 0 {
		close(p.onEmpty)
		p.onEmpty = nil
	}
}

// drained returns a channel that is closed once there is no connection left.
// Call it once, when none is accepted any more.
func (p *pool) drained() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	ch := make(chan struct{})
	if len(p.open) == 0 {
		close(ch)
	} else {
		p.onEmpty = ch
	}
	return ch
}

// release makes room when a connection is closed.
func (p *pool) release(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remove(c)
}

// changed follows a connection from idle to busy and back.
func (p *pool) changed(c *conn, state http.ConnState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.open[c]
	switch {
	case !ok:
	case state == http.StateActive && e != nil:
		p.idle.Remove(e)
		p.open[c] = nil
	case state == http.StateIdle && e == nil:
		p.open[c] = p.idle.PushBack(c)
	}
}

// closeIdle closes the connections on which no request is under way.
func (p *pool) closeIdle() {
	p.mu.Lock()
	var idle []*conn
	for e := p.idle.Front(); e != nil; e = e.Next() {
		idle = append(idle, e.Value.(*conn))
	}
	p.mu.Unlock()
	for _, c := range idle {
		c.Close()
	}
}

// beginWait reports whether a request may be kept waiting. Those without the
// right may hold half of their connections in this way. Each success is
// followed by an endWait.
func (p *pool) beginWait(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.privileged {
		return true
	}
	if p.waiting >= p.others/2 {
		return false
	}
	p.waiting++
	return true
}

func (p *pool) endWait(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !c.privileged {
		p.waiting--
	}
}
