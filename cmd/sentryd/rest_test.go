package main

import (
	"bufio"
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sentryd/sentryd/pkg/view"
)

func TestSettled(t *testing.T) {
	for _, tt := range []struct {
		states []string
		want   bool
	}{
		{nil, true},
		{[]string{view.Running, view.Stopped, view.Exited, view.Failed}, true},
		{[]string{view.Running, view.Starting}, false},
		{[]string{view.Stopping}, false},
		{[]string{view.Backoff, view.Running}, false},
	} {
		if got := settled(stateOf(0, tt.states...)); got != tt.want {
			t.Errorf("%v: %v", tt.states, got)
		}
	}
}

func stateOf(version uint64, states ...string) *view.State {
	st := &view.State{Version: version}
	for _, s := range states {
		st.Entries = append(st.Entries, &view.Entry{State: s})
	}
	return st
}

// fakePictures are shown one after the other.
type fakePictures struct {
	now  *view.State
	next chan *view.State
}

func (f *fakePictures) Picture() *view.State { return f.now }

func (f *fakePictures) Wait(ctx context.Context, after uint64) *view.State {
	for f.now.Version <= after {
		select {
		case f.now = <-f.next:
		case <-ctx.Done():
			return f.now
		}
	}
	return f.now
}

// TestRestAfterAReexec: nothing is about to start, but there is still much to do.
func TestRestAfterAReexec(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, after := time.Now(), time.Duration(0)
		rest(nil, &fakePictures{now: stateOf(1, view.Running)}, func() { after = time.Since(began) })
		if after < restEvery {
			t.Errorf("given back after %v", after)
		}
	})
}

// TestRest gives memory back once, when nothing is about to start any more.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakePictures{now: stateOf(1, view.Starting), next: make(chan *view.State)}
		times := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			rest(nil, f, func() { times++ })
		}()
		f.next <- stateOf(2, view.Running, view.Backoff)
		synctest.Wait()
		if times != 0 {
			t.Error("given back while something is about to start")
		}
		f.next <- stateOf(3, view.Running, view.Running)
		<-done
		if times != 1 {
			t.Errorf("given back %d times", times)
		}
	})
}

// TestRestPatience does not wait for ever for an entry that never settles.
func TestRestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, after := time.Now(), time.Duration(0)
		rest(nil, &fakePictures{now: stateOf(1, view.Backoff)}, func() { after = time.Since(began) })
		if after != restPatience {
			t.Errorf("given back after %v", after)
		}
	})
}

// TestRestEnds lets a daemon end whose entries never settle.
func TestRestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakePictures{now: stateOf(1, view.Backoff), next: make(chan *view.State)}
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			rest(stop, f, func() { t.Error("given back by a daemon that ends") })
		}()
		synctest.Wait()
		close(stop)
		<-done
	})
}

func TestUntouched(t *testing.T) {
	const smaps = `00400000-009d4000 r-xp 00000000 fe:00 17 /usr/bin/sentryd
Size:               5968 kB
Rss:                5392 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me dw sd
009d4000-00ffe000 r--p 005d4000 fe:00 17 /usr/bin/sentryd
Anonymous:             4 kB
00ffe000-01066000 rw-p 00bfe000 fe:00 17 /usr/bin/sentryd
Anonymous:             0 kB
01066000-02000000 rw-p 00000000 00:00 0
Anonymous:             0 kB
7f0000000000-7f0000001000 r--p 00000000 fe:00 18 /tmp/not a/usr/bin/sentryd
Anonymous:             0 kB
7f0000001000-7f0000002000 r--p 00000000 fe:00 19 /usr/bin/other
Anonymous:             0 kB
7f0000002000-7f0000004000 r--p 00000000 fe:00 17 /usr/bin/sentryd
Anonymous:             0 kB
`
	got := untouched(bufio.NewScanner(strings.NewReader(smaps)), "/usr/bin/sentryd")
	if want := []span{{0x400000, 0x9d4000}, {0x7f0000002000, 0x7f0000004000}}; !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}
