package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// redis speaks to a redis server over a connection of its own: a line out, a
// reply in. A server that is not up yet is waited for, which is what a client
// of it has to do, too.
func redis(t *testing.T, socket, command string) string {
	t.Helper()
	var answer string
	eventually(t, "redis answers", func() error {
		c, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, command+"\r\n"); err != nil {
			return err
		}
		r := bufio.NewReader(c)
		line, err := r.ReadString('\n')
		if err == nil && strings.HasPrefix(line, "$") {
			line, err = r.ReadString('\n')
		}
		answer = strings.TrimSpace(line)
		if strings.HasPrefix(answer, "-LOADING") {
			return fmt.Errorf("%s", answer)
		}
		return err
	})
	return answer
}

// eventually asks a foreign program, which tells nobody when it is ready, until
// the answer is good.
func eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
	}
}

// killServer sends SIGKILL to a child of the daemon. Real servers write over
// their environment, and with it over the mark of the test.
func (d *daemon) killServer(pid int) {
	d.t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		d.t.Fatalf("pidfd_open %d: %v\n%s", pid, err, d)
	}
	defer unix.Close(fd)
	if parent := procStatus(d.t, pid, "PPid"); parent != strconv.Itoa(d.pid) {
		d.t.Fatalf("%d is a child of %s, not of the daemon", pid, parent)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		d.t.Fatal(err)
	}
}

// endGently has a test that fails end its daemon as one that passes does: the
// harness, which kills it, would not find the servers.
func (d *daemon) endGently() {
	d.t.Cleanup(func() {
		if d.done || !d.t.Failed() {
			return
		}
		// It fails if the daemon has ended.
		_ = unix.PidfdSendSignal(d.pidfd, unix.SIGTERM, nil, 0)
		select {
		case <-d.ended:
		case <-time.After(patience):
		}
	})
}

// sessionOf returns the processes that are in the session which a child of the
// daemon led, whether it lives or not.
func sessionOf(t *testing.T, pid int) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var members []int
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		// proc_pid_stat(5): behind the name state, ppid, pgrp and session
		_, rest, _ := cutLast(string(text), ") ")
		if fields := strings.Fields(rest); len(fields) > 3 && fields[0] != "Z" && fields[3] == strconv.Itoa(pid) {
			member, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			if err != nil {
				t.Fatal(err)
			}
			members = append(members, member)
		}
	}
	return members
}

// TestRedisIsKeptRunning: a real server that is killed is back after its delay,
// with its data.
func TestRedisIsKeptRunning(t *testing.T) {
	testenv.Need(t, testenv.Tool("redis-server"))
	dir := t.TempDir()
	const delay = 300 * time.Millisecond
	d := startDaemon(t, fmt.Sprintf(`entries:
  redis:
    command: [redis-server, --port, "0", --unixsocket, redis.sock, --daemonize, "no", --save, "", --appendonly, "yes", --appendfsync, always]
    directory: .
    delay: %v
    stop: {timeout: 30s}
`, delay), options{dir: dir})
	d.endGently()
	d.running("redis", 1)
	socket := filepath.Join(dir, "redis.sock")
	if got := redis(t, socket, "PING"); got != "+PONG" {
		t.Errorf("PING: %s", got)
	}
	if got := redis(t, socket, "SET kept yes"); got != "+OK" {
		t.Errorf("SET: %s", got)
	}
	for i := range uint64(3) {
		before := d.running("redis", 1).process("redis", 0)
		d.killServer(before.PID)
		s := d.await("redis is back", func(s *state) bool {
			p := s.process("redis", 0)
			return p.State == "running" && p.Incarnation == before.Incarnation+1
		})
		p := s.process("redis", 0)
		if x := p.LastExit; x == nil || x.Reason != "signaled" || x.Signal != "SIGKILL" || x.PID != before.PID || x.Initiator != "process" {
			t.Errorf("the exit is %+v", p.LastExit)
		} else if pause := p.StartedAt.Sub(x.At); pause < delay {
			t.Errorf("started %v after the exit, with a delay of %v", pause, delay)
		}
		if got := redis(t, socket, "GET kept"); got != "yes" {
			t.Errorf("after kill %d the data is %q", i+1, got)
		}
	}
	pid := d.state().process("redis", 0).PID
	d.reexec()
	if got := redis(t, socket, "GET kept"); got != "yes" {
		t.Errorf("after a re-exec the data is %q", got)
	}
	if now := d.state().process("redis", 0).PID; now != pid {
		t.Errorf("the pid was %d, and is %d after a re-exec", pid, now)
	}
	d.must("stop", "redis")
	if x := d.state().process("redis", 0).LastExit; x == nil || x.Code == nil || *x.Code != 0 || x.Initiator != "command" {
		t.Errorf("a stop on TERM is %+v", x)
	}
	d.stop()
	d.out.expect(
		fmt.Sprintf("20:17:51 redis.%d …ready to accept connections…", pid),
		fmt.Sprintf("20:17:51 redis.%d …User requested shutdown…", pid),
		fmt.Sprintf("20:17:51 redis.%d …Exited at 1334081875 with ExitSuccess.", pid),
		"Bye.")
}

// TestNginxIsKeptRunning: a server with workers. Killed, its workers live on
// with the port, and have to go before it can be back; a stop leaves nothing.
func TestNginxIsKeptRunning(t *testing.T) {
	testenv.Need(t, testenv.Tool("nginx"))
	dir := t.TempDir()
	listen := freeAddress(t)
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(`
daemon off;
pid nginx.pid;
worker_processes 3;
error_log stderr notice;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
  server { listen `+listen+`; location / { return 200 "hello\n"; } }
}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, `entries:
  nginx:
    command: [nginx, -p, ./, -c, nginx.conf, -e, stderr]
    directory: .
    delay: 200
    stop: {signal: QUIT, timeout: 10s}
`, options{dir: dir})
	d.endGently()
	hello := func() {
		t.Helper()
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		eventually(t, "nginx answers", func() error {
			resp, err := c.Get("http://" + listen)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "hello\n" {
				return fmt.Errorf("%q, %v", body, err)
			}
			return nil
		})
	}
	hello()
	first := d.running("nginx", 1).process("nginx", 0)
	eventually(t, "a master and 3 workers", func() error { // one worker is enough to answer
		if members := sessionOf(t, first.PID); len(members) != 1+3 {
			return fmt.Errorf("the session is %v", members)
		}
		return nil
	})
	d.killServer(first.PID)
	s := d.await("nginx is back", func(s *state) bool {
		p := s.process("nginx", 0)
		return p.State == "running" && p.Incarnation > first.Incarnation
	})
	if p := s.process("nginx", 0); p.Incarnation != first.Incarnation+1 {
		t.Errorf("incarnation %d: it was started while the port was still taken\n%s", p.Incarnation, d)
	}
	if members := sessionOf(t, first.PID); len(members) != 0 {
		t.Errorf("left of the one that was killed: %v", members)
	}
	hello()

	second := s.process("nginx", 0).PID
	d.must("signal", "HUP", "nginx") // nginx's own reload
	d.out.expect(fmt.Sprintf("20:17:51 nginx.%d …signal 1 (SIGHUP) received…", second))
	hello()
	if p := d.state().process("nginx", 0); p.PID != second {
		t.Errorf("the pid was %d, and is %d after a HUP", second, p.PID)
	}
	d.must("stop", "nginx")
	if members := sessionOf(t, second); len(members) != 0 {
		t.Errorf("a stop leaves %v", members)
	}
	if c, err := net.Dial("tcp", listen); err == nil {
		c.Close()
		t.Error("somebody still listens")
	}
	d.must("start", "nginx")
	hello()
	third := d.state().process("nginx", 0).PID
	d.stop()
	if members := sessionOf(t, third); len(members) != 0 {
		t.Errorf("the daemon's end leaves %v", members)
	}
}
