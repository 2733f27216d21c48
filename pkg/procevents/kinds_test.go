package procevents

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "capture testdata from this kernel")

// capture keeps the datagrams of the last Receive as fixtures, one of each name.
type capture map[string]string

func (c capture) add(l *Listener, i int, name string) {
	if _, ok := c[name]; !ok {
		c[name] = hex.EncodeToString(l.batch.data[i][:l.batch.headers[i].Len])
	}
}

// Every kind of event, caused on the real kernel. With -update the datagrams
// become the fixtures of TestFixtures.
func TestKinds(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: changes the child's user and group")
	}
	l := listen(t, Config{})
	pid := causeAll(t)

	want := map[string]string{
		"fork":     fmt.Sprintf("fork %d parent %d", pid.child, os.Getpid()),
		"sid":      fmt.Sprintf("sid %d", pid.child),
		"gid":      fmt.Sprintf("gid %d real 65533 effective 65533", pid.child),
		"uid":      fmt.Sprintf("uid %d real 65534 effective 65534", pid.child),
		"exec":     fmt.Sprintf("exec %d", pid.child),
		"comm":     fmt.Sprintf("comm %d \"re\\x1bnamed\"", pid.child),
		"exit":     fmt.Sprintf("exit %d parent %d code 7", pid.child, os.Getpid()),
		"ptrace":   fmt.Sprintf("ptrace %d tracer %d", pid.traced, os.Getpid()),
		"detach":   fmt.Sprintf("ptrace %d detached", pid.traced),
		"coredump": fmt.Sprintf("coredump %d parent %d", pid.dumped, os.Getpid()),
		"ack":      "ack",
		"segv":     fmt.Sprintf("exit %d parent %d SIGSEGV", pid.dumped, os.Getpid()),
	}
	if err := Supported(); err != nil { // asks, and everybody gets the answer
		t.Error(err)
	}
	seen := capture{}
	last := mark(t)
	buf := make([]Event, batchLen)
	for done := false; !done; {
		n, err := l.Receive(buf)
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range buf[:n] {
			_, text, _ := strings.Cut(e.String(), " ")
			for name, w := range want {
				// Whether a core is written is the host's choice, and an exit
				// whose wait was faster has no parent.
				text = strings.Replace(text, " parent 0 ", fmt.Sprintf(" parent %d ", os.Getpid()), 1)
				if strings.TrimSuffix(text, " core") == w {
					seen.add(l, i, name)
				}
			}
			done = done || last(&e)
		}
	}
	for name, w := range want {
		if seen[name] == "" {
			t.Errorf("no event %q", w)
		}
	}
	if *update {
		for name, data := range seen {
			writeFixture(t, name, data)
		}
	}
}

type pids struct{ child, traced, dumped int }

func causeAll(t *testing.T) (p pids) {
	t.Helper()
	child := exec.Command("/bin/sh", "-c", `printf 're\033named' >/proc/$$/comm; exit 7`)
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: 65534, Gid: 65533}}
	_ = child.Run()
	p.child = child.Process.Pid

	// cat ends when its input does.
	traced := exec.Command("cat")
	in, err := traced.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := traced.Start(); err != nil {
		t.Fatal(err)
	}
	p.traced = traced.Process.Pid
	if err := traceOnce(p.traced); err != nil {
		t.Error(err)
	}
	in.Close()
	if err := traced.Wait(); err != nil {
		t.Error(err)
	}

	dumped := exec.Command("/bin/sh", "-c", "kill -SEGV $$")
	dumped.Dir = t.TempDir()
	_ = dumped.Run()
	p.dumped = dumped.Process.Pid
	return p
}

// traceOnce attaches to the process and lets it go; only the thread that
// attached may. PTRACE_SEIZE and PTRACE_INTERRUPT leave no SIGSTOP behind, as
// PTRACE_ATTACH does when the process happens to stop for something else first.
func traceOnce(pid int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(pid); err != nil {
		return os.NewSyscallError("ptrace seize", err)
	}
	if err := unix.PtraceInterrupt(pid); err != nil {
		return os.NewSyscallError("ptrace interrupt", err)
	}
	if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil {
		return os.NewSyscallError("wait4", err)
	}
	return os.NewSyscallError("ptrace detach", unix.PtraceDetach(pid))
}

func writeFixture(t *testing.T, name, data string) {
	t.Helper()
	raw, err := hex.DecodeString(data)
	if err != nil {
		t.Fatal(err)
	}
	e, err := Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("testdata", name+".txt"), []byte(fixture(data, e)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// fixture is a datagram in hex, the line for people, and all fields.
func fixture(data string, e Event) string {
	type plain Event // without String
	return fmt.Sprintf("%s\n%s\n%+v\n", data, e, plain(e))
}

func TestFixtures(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, file := range files {
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		data, _, _ := strings.Cut(string(want), "\n")
		raw, err := hex.DecodeString(data)
		if err != nil {
			t.Fatal(err)
		}
		e, err := Decode(raw)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if got := fixture(data, e); got != string(want) {
			t.Errorf("%s:\ngot  %s\nwant %s", file, got, want)
		}
	}
}
