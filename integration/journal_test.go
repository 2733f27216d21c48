package integration

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The head of a journal: 8 bytes of magic, format, length of its text and a CRC-32C
// of all that, in this order, and then the text.
const (
	journalFormatAt = 8
	journalLengthAt = 12
	journalSumAt    = 16
	journalTextAt   = 20
)

// resealed changes the head of a journal, and puts the right checksum there.
func resealed(journal []byte, change func(head []byte)) []byte {
	journal = bytes.Clone(journal)
	end := journalTextAt + int(binary.BigEndian.Uint32(journal[journalLengthAt:]))
	change(journal[:end])
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	sum.Write(journal[:journalSumAt])
	sum.Write(journal[journalTextAt:end])
	binary.BigEndian.PutUint32(journal[journalSumAt:], sum.Sum32())
	return journal
}

// newerJournal is a journal of the next format.
func newerJournal(journal []byte) []byte {
	return resealed(journal, func(head []byte) {
		binary.BigEndian.PutUint32(head[journalFormatAt:], 1+binary.BigEndian.Uint32(head[journalFormatAt:]))
	})
}

// otherBoot is a journal of another boot.
func otherBoot(journal []byte) []byte {
	return resealed(journal, func(head []byte) {
		boot := bytes.Index(head, []byte(`"boot_id":"`)) + len(`"boot_id":"`)
		copy(head[boot:], "00000000-0000-4000-8000-000000000000")
	})
}

// TestAnotherBoot: a journal of a boot that is over names nobody. Entries start
// afresh, and whoever has its pids now gets no signal.
func TestAnotherBoot(t *testing.T) {
	d := startDaemon(t, "entries: {a: {command: sleep 100000, count: 3, delay: 10}}\n", options{})
	d.must("scale", "a=5")
	before := d.running("a", 5)
	d.die()
	path := d.runtimeFile("journal")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range before.entry("a").pids() {
		if !d.kill(pid, unix.SIGKILL) {
			t.Fatalf("process %d is not there", pid)
		}
		d.awaitEnd(pid)
	}
	replaceFile(t, path, string(otherBoot(text)), 0o600)
	s, _ := d.rise(options{})
	if s.Version <= before.Version {
		t.Errorf("version %d after %d", s.Version, before.Version)
	}
	s = d.running("a", 3)
	e := s.entry("a")
	if e.Count != 3 || e.Starts != 3 || e.Exits != 0 {
		t.Errorf("count %d, %d starts, %d exits", e.Count, e.Starts, e.Exits)
	}
	for _, p := range e.Processes {
		if p.Adopted || p.Incarnation != 1 || p.LastExit != nil {
			t.Errorf("%+v", p)
		}
	}
	if !strings.Contains(d.log.String(), "another boot") {
		t.Errorf("not said\n%s", d)
	}
	d.stop()
}

// TestImageWithoutState: an image that finds no state after execve does not end and
// loses nobody: what the journal names is taken over, as after a death, and nothing
// stays open that nobody knows.
func TestImageWithoutState(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "sentryd")
	text, err := os.ReadFile(docsBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bin, text, 0o755); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, `entries:
  a: {command: sleep 100000, count: 3}
  ends: {command: "sh -c 'trap \"exit 7\" TERM; while :; do sleep 0.01; done'", delay: 1h}
`, options{bin: bin})
	d.running("ends", 1)
	ids := d.identities(d.running("a", 3).entry("a"))
	resources := descriptors(t, d.pid)
	// It passes its preflight, and loses the way to its state then.
	replaceFile(t, bin, fmt.Sprintf(`#!/bin/sh
[ "$1" = check-state ] || SENTRYD_STATE_FD=%s
exec %s "$@"
`, "99999", docsBinary(t)), 0o755)
	started := "Sentry started (PID: 1511 saved in /run/sentryd/test/sentryd.pid)."
	d.out.expect(started)
	d.signal(unix.SIGHUP)
	d.out.expect(started, started)
	d.client.close() // what was listened on is closed, too
	d.client = newClient(d.runtimeFile("control.sock"))
	s := d.await("the processes are taken over", func(s *state) bool { return s.process("a", 0).Adopted })
	d.same(ids, s.entry("a"))
	if s.Daemon.PID != d.pid {
		t.Errorf("pid %d, was %d", s.Daemon.PID, d.pid)
	}
	if !strings.Contains(d.log.String(), "inherit state") {
		t.Errorf("not said\n%s", d)
	}
	for what, n := range descriptors(t, d.pid) { // those that whoever ran the tests left open are closed, too
		if n > resources[what] {
			t.Errorf("%d descriptors of %s, %d before", n, what, resources[what])
		}
	}
	d.kill(s.process("ends", 0).PID, unix.SIGTERM)
	s = d.await("its end", func(s *state) bool { return s.process("ends", 0).LastExit != nil })
	if x := s.process("ends", 0).LastExit; x.Reason != "exited" || x.Code == nil || *x.Code != 7 {
		t.Errorf("%+v", x)
	}
	d.stop()
}
