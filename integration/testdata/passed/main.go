// Command passed serves the sockets that it is started with, as
// sd_listen_fds(3) describes them: HTTP on streams, an echo of datagrams. On
// SIGTERM it answers what it has accepted, and ends.
//
// http.Server.Shutdown would not do: it drops a request that is just being
// read. So this closes the listeners, and waits for the connections.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
)

const firstFD = 3

func main() {
	stop, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		log.Fatalf("LISTEN_PID is %q, and this is %d", os.Getenv("LISTEN_PID"), os.Getpid())
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s %d %s\n", os.Getenv("SENTRYD_SLOT"), os.Getpid(), os.Getenv("LISTEN_FDNAMES"))
	})}
	var connections, serving sync.WaitGroup
	server.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			connections.Add(1)
		case http.StateClosed:
			connections.Done()
		}
	}
	var listeners []net.Listener
	for i := range n {
		f := os.NewFile(uintptr(firstFD+i), "passed")
		ln, err := net.FileListener(f)
		if err != nil {
			reply(f)
			continue
		}
		f.Close()
		if u, ok := ln.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // the path is sentryd's
		}
		listeners = append(listeners, ln)
		serving.Add(1)
		go func() {
			defer serving.Done()
			if err := server.Serve(ln); !errors.Is(err, net.ErrClosed) {
				log.Fatal(err)
			}
		}()
	}
	<-stop.Done()
	for _, ln := range listeners {
		ln.Close() // of ours: the socket itself goes on listening
	}
	serving.Wait()
	server.SetKeepAlivesEnabled(false)
	connections.Wait()
}

// reply sends datagrams back to where they came from.
func reply(f *os.File) {
	defer f.Close()
	conn, err := net.FilePacketConn(f)
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				log.Fatal(err)
			}
			if _, err := conn.WriteTo(buf[:n], from); err != nil {
				log.Fatal(err)
			}
		}
	}()
}
