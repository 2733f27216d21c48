package spawn

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var markNames = []string{"SPAWN_TEST_MARK", "SPAWN_TEST_SLOT"}

// findMarked returns the pids of the leaders with that mark, in order.
func findMarked(t *testing.T, cgroup, mark string) (pids []int, all int) {
	t.Helper()
	found, err := FindLeaders(cgroup, markNames)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range found {
		if pid, err := pidOf(l.PidFD); err != nil || pid != l.PID {
			t.Errorf("pidfd of %d is of %d: %v", l.PID, pid, err)
		}
		unix.Close(l.PidFD)
		if slices.Equal(l.Values, []string{mark, "3"}) {
			pids = append(pids, l.PID)
		} else if cgroup == "" && l.Values == nil {
			t.Errorf("without the marks: %+v", l)
		}
	}
	return pids, len(found)
}

func TestFindLeaders(t *testing.T) {
	testenvTool(t, "setsid")
	p := newTestPool(t, Options{}, nil)
	mark := strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	dir := t.TempDir()
	// A child in its session, and one in a session of its own.
	spec := sh("sleep 1000 & setsid sh -c 'echo $$; exec sleep 1000' & exec sleep 1000")
	spec.Env = append(os.Environ(), "SPAWN_TEST_MARK="+mark, "SPAWN_TEST_SLOT=3")
	spec.Stdout = Stdio{Path: filepath.Join(dir, "out"), Flags: unix.O_RDWR}
	if err := unix.Mkfifo(spec.Stdout.Path, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(spec.Stdout.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p.Start(1, spec)
	main := p.take(t, 1)[0].PID
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	other, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	otherfd, err := unix.PidfdOpen(other, 0) // a child of our child, which lives
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(otherfd)
	if got, _ := findMarked(t, "", mark); !slices.Equal(got, []int{main, other}) {
		t.Errorf("found %v, want the main process first: %v", got, []int{main, other})
	}
	if got, _ := findMarked(t, "", "nobody's"); got != nil {
		t.Errorf("found %v", got)
	}
	if _, err := FindLeaders(filepath.Join(dir, "none"), markNames); err == nil {
		t.Error("found something in a control group that is not there")
	}

	cgroup := testCgroup(t)
	if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(strconv.Itoa(main)), 0); err != nil {
		t.Fatal(err)
	}
	if got, _ := findMarked(t, cgroup, mark); !slices.Equal(got, []int{main}) {
		t.Errorf("found %v in the control group, want %d", got, main)
	}
	if got, all := findMarked(t, filepath.Dir(cgroup), "nobody's"); got != nil || all != 1 {
		t.Errorf("found %v and %d leaders without the marks in the control group, want none and 1", got, all)
	}
	p.killAll()
	if got, all := findMarked(t, cgroup, mark); got != nil || all != 0 {
		t.Errorf("found %v, %d of what is dead", got, all)
	}
}

// TestFindLeadersInExecve finds a process that does nothing but execve(2), which
// has no environment for much of its time.
func TestFindLeadersInExecve(t *testing.T) {
	p := newTestPool(t, Options{}, nil)
	mark := "execs-" + strconv.Itoa(os.Getpid())
	spec := sh("")
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("exec /bin/sh \"$0\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec.Args = []string{"sh", script}
	spec.Env = append(spec.Env, "SPAWN_TEST_MARK="+mark, "SPAWN_TEST_SLOT=3")
	p.Start(1, spec)
	pid := p.take(t, 1)[0].PID
	awaitExec(t, pid)
	n := 500
	if testing.Short() {
		n = 50
	}
	for i := range n {
		if got, _ := findMarked(t, "", mark); !slices.Equal(got, []int{pid}) {
			t.Fatalf("look %d found %v, want %d", i, got, pid)
		}
	}
}

// testCgroup makes a control group in one of the test's own.
func testCgroup(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			top, err := os.MkdirTemp(f[1], "spawn-test-")
			if err != nil {
				t.Skipf("needs a cgroup v2 that may be written: %v", err)
			}
			sub := filepath.Join(top, "slot")
			if err := os.Mkdir(sub, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				for _, dir := range []string{sub, top} {
					if err := os.Remove(dir); err != nil {
						t.Error(err)
					}
				}
			})
			return sub
		}
	}
	t.Skip("needs cgroup v2: not mounted")
	return ""
}

// TestEndUnexeced kills a parent whose child is between clone and execve. The
// child lives on there, and only a process that was begun later may end it.
func TestEndUnexeced(t *testing.T) {
	if !haveClone3() {
		t.Skip("needs clone3")
	}
	parents := make([]*exec.Cmd, 2)
	fds, children := make([]int, 2), make([]int, 2)
	for i := range parents {
		cmd := exec.Command("/proc/self/exe", "unexeced", t.Name())
		cmd.Env = append(os.Environ(), "SPAWN_TEST_HELPER=unexeced")
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		parents[i] = cmd
		var pid int
		if _, err := fmt.Fscanln(out, &pid); err != nil { // of the child
			t.Fatal(err)
		}
		if children[i], err = unix.PidfdOpen(pid, 0); err != nil {
			t.Fatal(err)
		}
		if fds[i], err = unix.PidfdOpen(cmd.Process.Pid, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			for _, fd := range []int{fds[i], children[i]} {
				_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
				unix.Close(fd)
			}
			_ = cmd.Wait()
		})
	}
	args, err := json.Marshal(parents[0].Args)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SPAWN_TEST_ARGS", string(args))
	if got := runHelper(t, "end"); got != "0 <nil>\n" {
		t.Errorf("while the parents live: %s", got)
	}
	if err := unix.PidfdSendSignal(fds[0], unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	_ = parents[0].Wait()
	if dead(children[0]) {
		t.Error("the child died with its parent: this test shows nothing")
	}
	if got := runHelper(t, "end"); got != "1 <nil>\n" {
		t.Errorf("after the death of a parent: %s", got)
	}
	if !dead(children[0]) || dead(children[1]) || dead(fds[1]) {
		t.Errorf("dead: child %v, the other's child %v, the other %v", dead(children[0]), dead(children[1]), dead(fds[1]))
	}
	if got := runHelper(t, "end"); got != "0 <nil>\n" {
		t.Errorf("again: %s", got)
	}
}

func helpEnd() error {
	var args []string
	if err := json.Unmarshal([]byte(os.Getenv("SPAWN_TEST_ARGS")), &args); err != nil {
		return err
	}
	n, err := EndUnexeced(args, time.Minute)
	fmt.Println(n, err)
	return nil
}

// helpUnexeced makes a child that waits for ever before its execve, and says its pid.
func helpUnexeced() error {
	devnull, err := openAbove2(unix.AT_FDCWD, "/dev/null", unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	out, err := openAbove2(unix.AT_FDCWD, "/proc/self/fd/1", unix.O_WRONLY, 0)
	if err != nil {
		return err
	}
	fds := [3]int{devnull, out, devnull}
	orig, err := originalLimit()
	if err != nil {
		return err
	}
	g, to := newProgram(), &target{path: "/bin/true", args: []string{"true"}}
	if !g.setup(to, &fds, -1, &Pool{orig: orig}) {
		return fmt.Errorf("setup")
	}
	byteThere := []byte{1}
	last := len(g.steps) - 1
	exec, name := g.steps[last], g.names[last]
	g.steps, g.names = g.steps[:last], g.names[:last]
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	// The child's descriptors from 3 on are closed by then: it tells through 2,
	// which is made the pipe.
	g.step("write", "", unix.SYS_WRITE, 2, uintptr(unsafe.Pointer(&byteThere[0])), 1)
	g.step("pause", "", unix.SYS_PPOLL, 0, 0, 0, 0)
	g.steps, g.names = append(g.steps, exec), append(g.names, name)
	for i := range g.steps {
		if s := &g.steps[i]; s.nr == unix.SYS_DUP3 && s.args[1] == 2 {
			s.args[0] = uintptr(pipe[1])
		}
		if s := &g.steps[i]; i == 0 && s.nr == unix.SYS_CLOSE_RANGE {
			s.args[0] = uintptr(max(int(s.args[0]), pipe[1]+1))
		}
	}
	g.fly()
	if _, err := unix.Read(pipe[0], make([]byte, 1)); err != nil {
		return err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", g.pidfd))
	if err != nil {
		return err
	}
	_, pid, _ := bytes.Cut(text, []byte("Pid:"))
	fmt.Println(strings.Fields(string(pid))[0])
	err = unix.Pause() // select {} would be taken for a deadlock: nobody waits for the child
	runtime.KeepAlive(g)
	return err
}
