package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// ticking exits by itself, again and again.
const ticking = "entries:\n  tick: {command: sleep 0.05, delay: 0}\n"

// connectorSocket returns a descriptor of the daemon's own proc connector.
func connectorSocket(t *testing.T, pid int) int {
	t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		to, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(to, "socket:") {
			continue
		}
		number, err := strconv.Atoi(filepath.Base(link))
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PidfdGetfd(pidfd, number, 0)
		if err != nil {
			t.Fatal(err)
		}
		domain, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		protocol, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		if domain == unix.AF_NETLINK && protocol == unix.NETLINK_CONNECTOR {
			t.Cleanup(func() { unix.Close(fd) })
			return fd
		}
		unix.Close(fd)
	}
	t.Fatal("the daemon has no connector's socket")
	return -1
}

// TestConnectorSilent takes the daemon's socket out of the connector's group:
// nothing comes any more, and no error. It is noticed in time, said and mended,
// and no exit is missed meanwhile.
func TestConnectorSilent(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.Connector())
	d := startDaemon(t, ticking, options{})
	before := d.await("the first exits", func(s *state) bool { return s.entry("tick").Exits >= 3 })
	resyncs := d.metrics()["sentryd_proc_resyncs_total"]
	if err := unix.SetsockoptInt(connectorSocket(t, d.pid), unix.SOL_NETLINK, unix.NETLINK_DROP_MEMBERSHIP, 1); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	const again = "the proc connector is heard again"
	s := d.await("the silence is noticed and mended", func(s *state) bool {
		return strings.Contains(d.String(), again) && s.Daemon.ProcConnector.Up // the line comes before the picture
	})
	if took := time.Since(began); took > testenv.Slow(15*time.Second) {
		t.Errorf("noticed after %v", took)
	}
	if n := s.entry("tick").Exits - before.entry("tick").Exits; n < 3 {
		t.Errorf("%d exits meanwhile", n)
	}
	checkCounters(t, s)
	m := d.metrics()
	if m["sentryd_proc_resyncs_total"] <= resyncs || m["sentryd_proc_connector_up"] != 1 {
		t.Errorf("resyncs %v, before %v; up %v", m["sentryd_proc_resyncs_total"], resyncs, m["sentryd_proc_connector_up"])
	}
	exits := m[`sentryd_proc_events_total{event="exit"}`]
	d.await("events", func(*state) bool { return d.metrics()[`sentryd_proc_events_total{event="exit"}`] > exits })
	d.stop()
}

// TestConnectorReload changes what is asked for, turns it off and on again,
// each by a reload that the children do not notice.
func TestConnectorReload(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.Connector())
	entries := "entries:\n  tick: {command: sleep 0.05, delay: 0}\n  stay: {command: sleep 100000}\n"
	d := startDaemon(t, entries, options{})
	pid := d.running("stay", 1).process("stay", 0).PID
	events := func(kind string) float64 { return d.metrics()[`sentryd_proc_events_total{event="`+kind+`"}`] }
	apply := func(connector, changed string) *state {
		t.Helper()
		d.configure("proc_connector: " + connector + "\n" + entries)
		if out := d.must("reload"); !strings.Contains(out, changed) {
			t.Errorf("reload says %q, want %s", out, changed)
		}
		s := d.running("stay", 1)
		if got := s.process("stay", 0).PID; got != pid {
			t.Errorf("the child was replaced: %d, was %d", got, pid)
		}
		return s
	}
	more := func(kind string) {
		t.Helper()
		n := events(kind)
		d.await("more events: "+kind, func(*state) bool { return events(kind) > n })
	}
	more("fork")

	if s := apply("{events: exit}", "proc_connector.events"); !s.Daemon.ProcConnector.Up {
		t.Errorf("exits only: %+v", s.Daemon.ProcConnector)
	}
	forks := events("fork")
	more("exit")
	if n := events("fork"); n != forks {
		t.Errorf("%v forks heard of with events: exit", n-forks)
	}

	s := apply("{enabled: false}", "proc_connector.enabled")
	if c := s.Daemon.ProcConnector; c.Up || !strings.Contains(c.Reason, "proc_connector.enabled") {
		t.Errorf("off: %+v", c)
	}

	if s := apply("{buffer: 1MiB}", "proc_connector.buffer"); !s.Daemon.ProcConnector.Up {
		t.Errorf("on again: %+v", s.Daemon.ProcConnector)
	}
	more("fork")
	size, err := unix.GetsockoptInt(connectorSocket(t, d.pid), unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil || size != 1<<20 {
		t.Errorf("buffer of %d bytes, %v", size, err)
	}
	d.stop()
}

// TestConnectorInPIDNamespace: the same in a PID namespace, as a container has
// one, where the daemon is process 1.
func TestConnectorInPIDNamespace(t *testing.T) {
	d := deafDaemon(t, "--pid --fork --kill-child --mount-proc", "PID namespace", "share the host's PID namespace")
	d.must("stop") // unshare passes no signal on
	d.finish(0)
}

// TestConnectorInUserNamespace: where the connector cannot be had that is said,
// in words a person can act on, and exits are counted all the same.
func TestConnectorInUserNamespace(t *testing.T) {
	deafDaemon(t, "-U -r", "user namespace", "run on the host").stop()
}

// deafDaemon starts a daemon by unshare(1), where the connector cannot be heard,
// and checks that it does all else and gives a reason with these words.
func deafDaemon(t *testing.T, unshare string, reason ...string) *daemon {
	t.Helper()
	testenv.Need(t, testenv.Root(), testenv.Tool("unshare"))
	bin := filepath.Join(t.TempDir(), "sentryd-unshared")
	script := "#!/bin/sh\nexec unshare " + unshare + " " + docsBinary(t) + " \"$@\"\n"
	if err := os.WriteFile(bin, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, ticking, options{bin: bin})
	s := d.await("exits", func(s *state) bool { return s.entry("tick").Exits >= 3 })
	for _, words := range reason {
		if c := s.Daemon.ProcConnector; c.Up || !strings.Contains(c.Reason, words) {
			t.Errorf("the connector: %+v, no %q", c, words)
		}
	}
	if !strings.Contains(d.String(), "the proc connector is not heard") {
		t.Errorf("the log does not say it:\n%s", d)
	}
	if got := d.metrics()["sentryd_proc_connector_up"]; got != 0 {
		t.Errorf("sentryd_proc_connector_up is %v", got)
	}
	checkCounters(t, s)
	return d
}
