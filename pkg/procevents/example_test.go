package procevents_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"time"

	"github.com/sentryd/sentryd/pkg/procevents"
)

// Print how every process on the host ends, for a minute.
func Example() {
	l, err := procevents.Dial(procevents.Config{Kinds: []procevents.Kind{procevents.Exit}})
	if err != nil {
		log.Fatal(err) // says what this host or user lacks
	}
	defer l.Close()
	if err := l.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		log.Fatal(err)
	}
	events := make([]procevents.Event, 128)
	for {
		n, err := l.Receive(events)
		switch {
		case errors.Is(err, procevents.ErrLost):
			log.Print(err) // a supervisor would look at its children now
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		case err != nil:
			log.Fatal(err)
		}
		for i := range events[:n] {
			if e := &events[i]; !e.IsThread() {
				fmt.Println(e)
			}
		}
	}
}

// Follow events for good: dial anew when they stop, and have everything that is
// tracked read again whenever some may have been missed.
func ExampleErrSilent() {
	reread := func() {} // look at every process that is tracked
	follow := func(l *procevents.Listener) error {
		defer l.Close()
		reread()
		events := make([]procevents.Event, 128)
		for {
			n, err := l.Receive(events)
			for i := range events[:n] {
				fmt.Println(&events[i])
			}
			switch {
			case errors.Is(err, procevents.ErrLost):
				reread()
			case err != nil:
				return err // ErrSilent, or the system's
			}
		}
	}
	for {
		l, err := procevents.Dial(procevents.Config{Buffer: 64 << 20})
		if err != nil {
			log.Fatal(err) // this host has none; see the errors that Dial returns
		}
		log.Print(follow(l))
	}
}

// Learn how a child ended from its Exit event.
func ExampleListener_Receive() {
	l, err := procevents.Dial(procevents.Config{Kinds: []procevents.Kind{procevents.Exit}})
	if err != nil {
		fmt.Println("code 3") // no connector here
		return
	}
	defer l.Close()
	child := exec.Command("/bin/sh", "-c", "exit 3")
	if err := child.Start(); err != nil {
		log.Fatal(err)
	}
	defer child.Wait()
	events := make([]procevents.Event, 128)
	for {
		n, err := l.Receive(events)
		if err != nil {
			log.Fatal(err)
		}
		for i := range events[:n] {
			if e := &events[i]; int(e.PID) == child.Process.Pid {
				fmt.Println("code", e.ExitStatus().ExitStatus())
				return
			}
		}
	}
	// Output: code 3
}

// How many events were lost, and why.
func ExampleLostError() {
	var err error = &procevents.LostError{Events: 12, Overrun: true} // from Receive
	var lost *procevents.LostError
	if errors.As(err, &lost) {
		fmt.Println(lost.Events, lost.Overrun)
		fmt.Println(lost)
	}
	// Output:
	// 12 true
	// proc connector: 12 events were lost, the reader was too slow for the buffer
}

// Keep a subscription over an execve: the new program finds the socket under
// the number that the old one passed on, here by way of the environment.
func ExampleFromFile() {
	cfg := procevents.Config{Kinds: []procevents.Kind{procevents.Exec}}
	l, err := procevents.Dial(cfg)
	if err != nil {
		fmt.Println("events go on") // no connector here
		return
	}
	defer l.Close()
	f, err := l.File() // the old program: clear close-on-exec on it, then execve
	if err != nil {
		log.Fatal(err)
	}

	heir, err := procevents.FromFile(f, cfg) // the new one: os.NewFile(number, "proc connector")
	if err != nil {
		log.Fatal(err)
	}
	child := exec.Command("/bin/true")
	if err := child.Run(); err != nil {
		log.Fatal(err)
	}
	events := make([]procevents.Event, 128)
	for {
		n, err := heir.Receive(events)
		if err != nil {
			log.Fatal(err)
		}
		for i := range events[:n] {
			if int(events[i].PID) == child.Process.Pid {
				fmt.Println("events go on")
				return
			}
		}
	}
	// Output: events go on
}

// Find out whether events can be had, and tell a person what is in the way.
func ExampleSupported() {
	switch err := procevents.Supported(); {
	case errors.Is(err, procevents.ErrPIDNamespace), errors.Is(err, procevents.ErrUserNamespace):
		fmt.Println("in a container:", err)
	case err != nil:
		fmt.Println(err)
	}

}
