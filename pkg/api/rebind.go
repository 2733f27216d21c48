package api

import (
	"net"
	"slices"
	"time"
)

// retryEvery is how often an address that could not be bound is tried again.
const retryEvery = 5 * time.Second

// schedule sees to it that retry is called if anything is left to bind, and
// only then: nothing wakes up an idle daemon.
func (l *Listeners) schedule() {
	missing := slices.ContainsFunc(l.list, func(it *listener) bool { return it.ln == nil })
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if missing && !l.closed {
		l.timer = time.AfterFunc(l.retryEvery, l.retry)
	}
}

// retry tries to bind what is not bound. Looking up a host may take long, so
// the lock is not held meanwhile.
func (l *Listeners) retry() {
	l.mu.Lock()
	var missing []*listener
	for _, it := range l.list {
		if it.ln == nil {
			missing = append(missing, it)
		}
	}
	l.mu.Unlock()

	changed := false
	for _, it := range missing {
		ln, err := net.Listen("tcp", it.address)
		changed = l.bound(it, ln, err) || changed
	}

	l.mu.Lock()
	l.schedule()
	l.mu.Unlock()
	if changed {
		l.changed()
	}
}

// bound takes the outcome of an attempt to bind, if it is still of use, and
// reports whether it differs from the last one.
func (l *Listeners) bound(it *listener, ln net.Listener, err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || it.ln != nil || !slices.Contains(l.list, it) {
		if ln != nil {
			ln.Close()
		}
		return false
	}
	if err != nil {
		differs := it.err.Error() != err.Error()
		it.err = err
		return differs
	}
	it.ln, it.err = ln, nil
	l.log.Info("http: listening", "address", ln.Addr().String())
	l.serve(it)
	return true
}
