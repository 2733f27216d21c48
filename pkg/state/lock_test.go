package state

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// playLock takes the lock and holds it until its standard input ends.
func playLock() error {
	f, _, err := Lock(filepath.Join(os.Getenv(dirEnv), "sentryd.pid"))
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Println("locked")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func TestLockIsHeldByAnother(t *testing.T) {
	cmd := role(t, "lock")
	dir := t.TempDir()
	cmd.Env = append(cmd.Env, dirEnv+"="+dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	path := filepath.Join(dir, "sentryd.pid")
	f, holder, err := Lock(path)
	if f != nil || !errors.Is(err, ErrLocked) || holder != cmd.Process.Pid {
		t.Errorf("%v, holder %d, want %d: %v", f, holder, cmd.Process.Pid, err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != fmt.Sprintf("%d\n", cmd.Process.Pid) {
		t.Errorf("pid file %q, %v", b, err)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	// Its file is stale now, and no obstacle.
	f, _, err = Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := os.ReadFile("/proc/self/fd/" + fmt.Sprint(f.Fd())); err != nil || string(b) != fmt.Sprintf("%d\n", os.Getpid()) {
		t.Errorf("pid file %q, %v", b, err)
	}
}

func TestLockAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sentryd.pid")
	// A stranger's longer text does not show behind the pid.
	if err := os.WriteFile(path, []byte("123456789\nand more\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, holder, err := Lock(path)
	if err != nil || holder != 0 {
		t.Fatal(holder, err)
	}
	defer f.Close()
	if holder, err := Relock(f); err != nil || holder != 0 {
		t.Error(holder, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&0o777 != 0o600 {
		t.Errorf("mode %#o, %v", st.Mode, err)
	}
	b := make([]byte, 64)
	n, err := f.ReadAt(b, 0)
	if want := fmt.Sprintf("%d\n", os.Getpid()); string(b[:n]) != want || !errors.Is(err, io.EOF) {
		t.Errorf("pid file %q, want %q (%v)", b[:n], want, err)
	}
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("not close-on-exec (%v)", err)
	}
}

func TestLockRefuses(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"link": "symbolic link", "fifo": "not a regular file", "missing/pid": "no such file",
	} {
		if _, _, err := Lock(filepath.Join(dir, name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if b, err := os.ReadFile(target); err != nil || string(b) != "precious" {
		t.Errorf("the link's target: %q, %v", b, err)
	}
}
