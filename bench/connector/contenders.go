package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	nobody   = "nobody"
	bareLoop = "C recvmmsg loop"
)

// contender is one way of listening.
type contender struct {
	name    string
	missing string // why it cannot run here
	kinds   int    // how many of a fork and an exit it is to hear of
	atMost  float64
	launch  func() (listener, error) // nil: nobody listens
}

// listener is a running contender that is subscribed.
type listener interface {
	pid() int
	// end is called once all that will come has been read. It ends the program
	// and returns how many events it got.
	end() (events uint64, err error)
}

func (b *bench) contenders() []contender {
	sentryd := func(connector string) func() (listener, error) {
		return func() (listener, error) { return b.startSentryd(connector) }
	}
	return []contender{
		{name: nobody},
		{name: bareLoop, kinds: 2, launch: func() (listener, error) { return startCounter(b.program("listen")) }},
		{name: "sentryd", kinds: 2, atMost: 1.5, launch: sentryd("{}")},
		{name: "sentryd, events: exit", kinds: 1, launch: sentryd("{events: exit}")},
		{name: "sentryd, connector off", launch: sentryd("{enabled: false}")},
		{name: "sentryd, buffer: 4KiB", kinds: 2, launch: sentryd("{buffer: 4KiB}")},
		{name: "vishvananda/netlink", kinds: 2, missing: b.missing["vishvananda"],
			launch: func() (listener, error) { return startCounter(b.program("vishvananda")) }},
		{name: "forkstat", kinds: 2, missing: b.missing["forkstat"], launch: b.startForkstat},
	}
}

// program is a child of ours. Signals go through its pidfd.
type program struct {
	cmd   *exec.Cmd
	pidfd int
}

func start(cmd *exec.Cmd) (program, error) {
	p := program{cmd: cmd, pidfd: -1}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, PidFD: &p.pidfd}
	if err := cmd.Start(); err != nil {
		return p, err
	}
	if p.pidfd < 0 {
		return p, fmt.Errorf("start %s: the kernel gave no pidfd", cmd.Path)
	}
	return p, nil
}

func (p program) pid() int { return p.cmd.Process.Pid }

func (p program) stop(sig unix.Signal) error {
	defer unix.Close(p.pidfd)
	if err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0); err != nil {
		return fmt.Errorf("signal %s: %w", p.cmd.Path, err)
	}
	return p.cmd.Wait()
}

// counter is a program that says when it is subscribed and, at the end of its
// input, what it got.
type counter struct {
	program
	in  io.Closer
	out *bufio.Reader
}

func startCounter(path string) (listener, error) {
	cmd := exec.Command(path)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c := counter{in: in, out: bufio.NewReader(out)}
	if c.program, err = start(cmd); err != nil {
		return nil, err
	}
	if line, err := c.out.ReadString('\n'); err != nil {
		in.Close()
		return nil, fmt.Errorf("%s: %q: %w", path, line, err)
	}
	return c, nil
}

func (c counter) end() (events uint64, err error) {
	defer unix.Close(c.pidfd)
	c.in.Close()
	var overruns uint64
	if _, err := fmt.Fscanf(c.out, "%d events, %d overruns\n", &events, &overruns); err != nil {
		return 0, fmt.Errorf("%s: %w", c.cmd.Path, err)
	}
	return events, c.cmd.Wait()
}

// forkstat prints what happens.
type forkstat struct {
	program
	lines chan uint64
}

func (b *bench) startForkstat() (listener, error) {
	cmd := exec.Command(b.forkstat, "-e", "fork,exit", "-s")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	f := forkstat{lines: make(chan uint64, 1)}
	if f.program, err = start(cmd); err != nil {
		return nil, err
	}
	if err := subscribed(f.pid()); err != nil {
		return nil, err
	}
	r := bufio.NewReader(out)
	go func() {
		var n uint64
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				break
			}
			// Time Event PID Info …; a fork has a second line for the child.
			if f := strings.Fields(string(line)); len(f) > 3 && (f[1] == "exit" || f[1] == "fork" && f[3] == "parent") {
				n++
			}
		}
		f.lines <- n
	}()
	return f, nil
}

func (f forkstat) end() (uint64, error) {
	defer unix.Close(f.pidfd)
	if err := unix.PidfdSendSignal(f.pidfd, unix.SIGINT, nil, 0); err != nil {
		return 0, fmt.Errorf("signal forkstat: %w", err)
	}
	n := <-f.lines // before Wait, which closes the pipe
	return n, f.cmd.Wait()
}

// subscribed waits until a process has a connector socket that is bound to its
// pid, as forkstat's is: it says nothing itself until its buffer is full.
func subscribed(pid int) error {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		sockets, err := os.ReadFile("/proc/net/netlink")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(sockets)) {
			// sk Eth Pid Groups …
			if f := strings.Fields(line); len(f) > 3 && f[1] == strconv.Itoa(unix.NETLINK_CONNECTOR) && f[2] == strconv.Itoa(pid) {
				return nil
			}
		}
	}
	return fmt.Errorf("process %d does not listen", pid)
}

// sentryd is a daemon that runs nothing.
type sentryd struct {
	program
	dir    string
	client http.Client
	before uint64
}

func (b *bench) startSentryd(connector string) (_ listener, err error) {
	s := sentryd{}
	if s.dir, err = os.MkdirTemp(b.dir, "sentryd-"); err != nil {
		return nil, err
	}
	conf := filepath.Join(s.dir, "bench.yaml")
	text := "http: {listen: none}\nproc_connector: " + connector + "\nentries: {}\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	socket := filepath.Join(s.dir, "bench", "control.sock")
	s.client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	if s.program, err = start(exec.Command(b.sentryd, "start", "-c", conf, "--runtime-dir", s.dir)); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(10 * time.Second)
	for s.before, err = s.events(); err != nil; s.before, err = s.events() {
		if time.Now().After(deadline) {
			return nil, err
		}
		<-time.After(10 * time.Millisecond)
	}
	return s, nil
}

// events returns how many forks and exits it has counted.
func (s sentryd) events() (n uint64, err error) {
	answer, err := s.client.Get("http://sentryd/metrics")
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		series, value, _ := strings.Cut(lines.Text(), " ")
		if series == `sentryd_proc_events_total{event="fork"}` || series == `sentryd_proc_events_total{event="exit"}` {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return 0, err
			}
			n += uint64(v)
		}
	}
	return n, lines.Err()
}

func (s sentryd) end() (uint64, error) {
	n, err := s.events()
	s.client.CloseIdleConnections()
	if stop := s.stop(unix.SIGTERM); err == nil {
		err = stop
	}
	return n - s.before, err
}
