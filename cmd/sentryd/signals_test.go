package main

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A signal that the daemon has taken but not obeyed yet must keep it from
// executing itself: the next image would know nothing of it.
func TestQuietSeesASignalInHand(t *testing.T) {
	s := newSignals()
	taken, goOn := make(chan os.Signal), make(chan struct{})
	go s.obey(func(sig os.Signal) {
		taken <- sig
		<-goOn
	})
	if !s.quiet() {
		t.Error("quiet without a signal: false")
	}
	s.ends <- unix.SIGTERM
	if sig := <-taken; sig != unix.SIGTERM {
		t.Fatalf("obeyed %v", sig)
	}
	if s.quiet() {
		t.Error("quiet with a signal in hand: true")
	}
	s.ends <- unix.SIGTERM // a second one, while the first is in hand
	if s.quiet() {
		t.Error("quiet with two signals: true")
	}
	close(goOn)
	<-taken
	for !s.quiet() { // until the last is obeyed
	}
}

func TestQuietSeesASignalThatWaits(t *testing.T) {
	for range 1000 {
		s := newSignals()
		obeyed := make(chan struct{})
		s.ends <- unix.SIGTERM
		go s.obey(func(os.Signal) { <-obeyed })
		if s.quiet() {
			t.Fatal("quiet with a signal that waits: true")
		}
		close(obeyed)
	}
}
