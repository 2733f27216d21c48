// Vishvananda listens to the proc connector through github.com/vishvananda/netlink
// and throws the events away: for comparison. It is a module of its own, so that
// sentryd does not depend on what it is compared with. It prints a line when it
// is subscribed and, at the end of its standard input, how many events it got
// and how often it got an error.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/vishvananda/netlink"
)

func main() {
	events, errors := make(chan netlink.ProcEvent, 4096), make(chan error, 1)
	if err := netlink.ProcEventMonitor(events, nil, errors); err != nil {
		fmt.Fprintln(os.Stderr, "vishvananda:", err)
		os.Exit(1)
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	fmt.Println("subscribed")
	got, failed := 0, 0
	for {
		select {
		case _, ok := <-events:
			if !ok {
				events = nil // it has given up
				continue
			}
			got++
		case <-errors:
			failed++
		case <-ended:
			fmt.Printf("%d events, %d overruns\n", got, failed)
			return
		}
	}
}
