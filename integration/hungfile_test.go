package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// hungDirectory is one on a file system that answers nobody: FUSE without a server.
// It ends with the test.
func hungDirectory(t *testing.T) string {
	t.Helper()
	testenv.Need(t, testenv.Root())
	dir := t.TempDir()
	fuse, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs /dev/fuse: %v", err)
	}
	end := sync.OnceFunc(func() {
		unix.Close(fuse) // what waits fails now
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	})
	t.Cleanup(end)
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fuse)
	if err := unix.Mount("test", dir, "fuse", 0, options); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	return dir
}

// TestSocketOnAHungFileSystem: the entry that needs it says so in its state within 5 s,
// a reload that needs it is refused, and nothing else notices, the end of the daemon
// included.
func TestSocketOnAHungFileSystem(t *testing.T) {
	hung := filepath.Join(hungDirectory(t), "s")
	served := filepath.Join(t.TempDir(), "s")
	config := fmt.Sprintf(`
entries:
  hung: {command: sleep 100000, delay: 1h, sockets: [{name: s, listen: "unix:%s"}]}
  other: {command: sleep 100000, sockets: [{name: s, listen: "unix:%s"}]}
`, hung, served)
	began := time.Now()
	d := startDaemon(t, config, options{})
	before := d.running("other", 1)
	ids := d.identities(before.entry("other"))
	if p := before.process("hung", 0); p.State != "starting" && time.Since(began) < 4*time.Second {
		t.Errorf("hung: %+v", p)
	}
	want := "bind unix:" + hung + ": connection timed out"
	s := d.await("the start has failed", func(s *state) bool { return s.process("hung", 0).LastExit != nil })
	if x := s.process("hung", 0).LastExit; x.Reason != "start_failed" || x.Error != want {
		t.Errorf("hung: %+v, want %q", x, want)
	}
	d.same(ids, s.entry("other"))
	if err := os.Remove(served); err != nil { // asked for again it is made again
		t.Fatal(err)
	}
	d.must("restart", "other")
	if _, err := os.Stat(served); err != nil {
		t.Error(err)
	}

	second := filepath.Join(filepath.Dir(hung), "t")
	d.configure(config + fmt.Sprintf("  third: {command: sleep 100000, sockets: [{name: s, listen: \"unix:%s\"}]}\n", second))
	code, _, errs := d.ctl("reload")
	if want := "entries.third.sockets: s: bind unix:" + second + ": connection timed out"; code != 2 || !strings.Contains(errs, want) {
		t.Errorf("reload: exit code %d: %s", code, errs)
	}
	// execve would wait for the thread that hangs, and the children for the daemon.
	d.configure(config)
	d.signal(unix.SIGHUP)
	s = d.await("the re-exec is refused", func(s *state) bool { return strings.Contains(s.Daemon.LastReload.Error, "hangs in the kernel") })
	if s.Daemon.Reexecs != 0 || s.process("other", 0).State != "running" {
		t.Errorf("after a SIGHUP: %+v", s)
	}
	d.stop()
}
