package spawn_test

import (
	"fmt"
	"os"
	"syscall"

	"github.com/sentryd/sentryd/pkg/spawn"
)

// A program that is kept running until it has ended three times.
func Example() {
	pool, err := spawn.New(spawn.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()

	spec := &spawn.Spec{Path: "sh", Args: []string{"sh", "-c", "exit 3"}, Env: os.Environ()}
	token := spawn.Token(1)
	pool.Start(token, spec)
	for {
		pool.Wait(-1)
		for _, e := range pool.Events(nil) {
			switch e.Kind {
			case spawn.Started:
				fmt.Println(e.Token, "started")
			case spawn.StartFailed:
				fmt.Println(e.Token, "failed:", e.Err)
				return
			case spawn.Exited:
				fmt.Println(e.Token, "exited with code", e.Status.Code)
				if token == 3 {
					return
				}
				token++ // a start is a new incarnation
				pool.Start(token, spec)
			}
		}
	}
	// Output:
	// 1 started
	// 1 exited with code 3
	// 2 started
	// 2 exited with code 3
	// 3 started
	// 3 exited with code 3
}

// What a child leaves behind is named and watched.
func ExamplePool_SignalTree() {
	pool, err := spawn.New(spawn.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()

	pool.Start(1, &spawn.Spec{Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 1000 & exit"}, Env: os.Environ()})
	for {
		pool.Wait(-1)
		for _, e := range pool.Events(nil) {
			switch e.Kind {
			case spawn.StartFailed:
				fmt.Println(e.Err)
				return
			case spawn.Exited:
				fmt.Println("exited, left behind:", len(e.Members))
				if err := pool.SignalTree(1, int(syscall.SIGTERM)); err != nil {
					fmt.Println(err)
				}
			case spawn.TreeEmpty:
				fmt.Println("tree empty")
				return
			}
		}
	}
	// Output:
	// exited, left behind: 1
	// tree empty
}

func ExampleStartError() {
	pool, err := spawn.New(spawn.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()

	pool.Start(1, &spawn.Spec{Path: "/usr/bin/nope"})
	var events []spawn.Event
	for len(events) == 0 {
		pool.Wait(-1)
		events = pool.Events(nil)
	}
	fmt.Println(events[0].Err)
	// Output: exec /usr/bin/nope: no such file or directory
}
