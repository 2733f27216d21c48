package main

import (
	"os"
	"os/signal"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A signal that the daemon has taken but not obeyed yet must keep it from
// executing itself: the next image would know nothing of it.
func TestQuietSeesASignalInHand(t *testing.T) {
	s := newSignals()
	defer signal.Reset()
	defer s.resume()
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

// TestQuietIsTheKernels: after quiet it is the kernel that a signal ends the daemon by,
// and after resume the daemon again that is told.
func TestQuietIsTheKernels(t *testing.T) {
	s := newSignals()
	s.resume()
	defer signal.Reset()
	defer s.resume()
	told := make(chan os.Signal)
	go s.obey(func(sig os.Signal) { told <- sig })
	if !s.quiet() {
		t.Fatal("not quiet")
	}
	for _, sig := range ending {
		if caught(t, sig) {
			t.Errorf("%v is caught", sig)
		}
	}
	s.resume()
	for _, sig := range ending {
		if !caught(t, sig) {
			t.Fatalf("%v is not caught", sig)
		}
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(self)
	if err := unix.PidfdSendSignal(self, unix.SIGQUIT, nil, 0); err != nil {
		t.Fatal(err)
	}
	if sig := <-told; sig != unix.SIGQUIT {
		t.Errorf("told of %v", sig)
	}
}

// caught says whether this process has a handler for a signal; see SigCgt in
// proc_pid_status(5).
func caught(t *testing.T, sig os.Signal) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "\nSigCgt:\t")
	word, _, _ := strings.Cut(after, "\n")
	mask, err := strconv.ParseUint(word, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return mask&(1<<(uint(sig.(unix.Signal))-1)) != 0
}
