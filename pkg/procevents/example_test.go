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
	l, err := procevents.Dial(procevents.Config{Buffer: 8 << 20})
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
		case errors.Is(err, procevents.ErrOverrun):
			log.Print("some events are lost; a supervisor would look at its children now")
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		case err != nil:
			log.Fatal(err)
		}
		for i := range events[:n] {
			if e := &events[i]; e.Kind == procevents.Exit && !e.IsThread() {
				fmt.Println(e)
			}
		}
	}
}

// Learn how a child ended from its Exit event.
func ExampleListener_Receive() {
	l, err := procevents.Dial(procevents.Config{})
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
			if e := &events[i]; e.Kind == procevents.Exit && int(e.PID) == child.Process.Pid {
				fmt.Println("code", e.ExitStatus().ExitStatus())
				return
			}
		}
	}
	// Output: code 3
}

// Keep a subscription over an execve: the new program finds the socket under
// the number that the old one passed on, here by way of the environment.
func ExampleFromFile() {
	l, err := procevents.Dial(procevents.Config{})
	if err != nil {
		fmt.Println("events go on") // no connector here
		return
	}
	defer l.Close()
	f, err := l.File() // the old program: clear close-on-exec on it, then execve
	if err != nil {
		log.Fatal(err)
	}

	heir, err := procevents.FromFile(f) // the new one: os.NewFile(number, "proc connector")
	if err != nil {
		log.Fatal(err)
	}
	if err := heir.Probe(); err != nil { // do events still come?
		log.Fatal(err)
	}
	events := make([]procevents.Event, 128)
	for {
		n, err := heir.Receive(events)
		if err != nil {
			log.Fatal(err)
		}
		for i := range events[:n] {
			if heir.IsProbe(&events[i]) {
				fmt.Println("events go on")
				return
			}
		}
	}
	// Output: events go on
}
