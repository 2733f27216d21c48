package spawn

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// pipes returns n descriptors of different pipes, at or above least.
func pipes(t *testing.T, n, least int) []int {
	t.Helper()
	var fds []int
	for range n {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.FcntlInt(uintptr(p[0]), unix.F_DUPFD_CLOEXEC, least)
		unix.Close(p[0])
		unix.Close(p[1])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		fds = append(fds, fd)
	}
	return fds
}

// link is what a descriptor of a process refers to.
func link(t *testing.T, pid string, fd int) string {
	t.Helper()
	l, err := os.Readlink(fmt.Sprintf("/proc/%s/fd/%d", pid, fd))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestPassedFiles looks at the descriptors and the variables of a child that
// was passed some, and at whether it was told its own pid.
func TestPassedFiles(t *testing.T) {
	low := pipes(t, 8, 3)
	slices.Reverse(low) // one of them is in the way of another, wherever they are
	for _, test := range []struct {
		name string
		fds  []int
	}{
		{"none", []int{}},
		{"low numbers", low},
		{"one", low[:1]},
		{"the same twice", []int{low[0], low[0]}},
		{"high numbers", pipes(t, passSlots, 128)},
		{"more high numbers than slots", pipes(t, passSlots+3, 128)},
		{"both", append(pipes(t, 2, 128), low...)},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newTestPool(t, Options{Spawners: 1}, nil)
			if p.fork {
				t.Skip("needs clone3(2)")
			}
			names := []string{}
			for i := range test.fds {
				names = append(names, fmt.Sprintf("n%d", i))
			}
			spec := static(t, pause())
			spec.Env = []string{"A=b", "LISTEN_PID=1", "LISTEN_FDS=99", "LISTEN_FDNAMES=x", "C=d"}
			spec.Files, spec.ListenNames = test.fds, names
			// The second start finds the slots used.
			for token := range Token(2) {
				pid := startOne(t, p, token, spec)
				want := []string{"A=b", "C=d", fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES=" + strings.Join(names, ":"), "LISTEN_PID=" + pid}
				if diff := cmp.Diff(want, environ(t, pid)); diff != "" {
					t.Error(diff)
				}
				if n := 3 + len(test.fds); !slices.Equal(childFDs(t, pid), upTo(n)) {
					t.Errorf("descriptors %v, want %d", childFDs(t, pid), n)
				}
				for i, fd := range test.fds {
					if got, want := link(t, pid, 3+i), link(t, "self", fd); got != want {
						t.Errorf("%d is %s, want %s", 3+i, got, want)
					}
				}
			}
		})
	}
}

// startOne starts spec, which has to work, and returns the pid when its program
// runs.
func startOne(t *testing.T, p *Pool, token Token, spec *Spec) (pid string) {
	t.Helper()
	p.Start(token, spec)
	ev := p.take(t, 1)
	if ev[0].Kind != Started {
		t.Fatalf("%+v %v", ev[0], ev[0].Err)
	}
	awaitExec(t, ev[0].PID)
	return strconv.Itoa(ev[0].PID)
}

// awaitExec returns when execve(2) of a child is over. It lets the parent go on,
// and so Started is reported, before the child has left our memory; its
// credentials come after that, and its environment last of all.
func awaitExec(t testing.TB, pid int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); runtime.Gosched() {
		exe, err := os.Readlink(procPath(pid, "exe"))
		if err != nil {
			t.Fatal(err)
		}
		st, err := readStat(pid)
		if err != nil {
			t.Fatal(err)
		}
		if own, _ := os.Executable(); exe != own && st.envEnd != 0 {
			return
		}
	}
	t.Fatalf("%d does not come to the end of its execve", pid)
}

// environ returns the environment of a process.
func environ(t *testing.T, pid string) []string {
	t.Helper()
	env, err := os.ReadFile("/proc/" + pid + "/environ")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(env), "\x00"), "\x00")
}

func upTo(n int) []int {
	l := make([]int, n)
	for i := range l {
		l[i] = i
	}
	return l
}

func childFDs(t *testing.T, pid string) []int {
	t.Helper()
	dir, err := os.ReadDir("/proc/" + pid + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	var fds []int
	for _, e := range dir {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	slices.Sort(fds)
	return fds
}

// TestPassedWithoutNames: descriptors alone work with each way to clone, and
// leave the environment as it is.
func TestPassedWithoutNames(t *testing.T) {
	both(t, func(t *testing.T, p *Pool) {
		spec := static(t, pause())
		spec.Env = []string{"LISTEN_FDS=kept"}
		spec.Files = pipes(t, 2, 3)
		pid := startOne(t, p, 1, spec)
		for i, fd := range spec.Files {
			if got, want := link(t, pid, 3+i), link(t, "self", fd); got != want {
				t.Errorf("%d is %s, want %s", 3+i, got, want)
			}
		}
		if diff := cmp.Diff(spec.Env, environ(t, pid)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestPassedErrors(t *testing.T) {
	fd := pipes(t, 1, 128)[0]
	gone := fd + 1000 // nothing here opens that many
	both(t, func(t *testing.T, p *Pool) {
		for i, test := range []struct {
			files []int
			names []string
			want  StartError
		}{
			{[]int{fd}, []string{}, StartError{"pass", "LISTEN_FDNAMES", syscall.EINVAL}},
			{[]int{fd}, []string{"a:b"}, StartError{"pass", "LISTEN_FDNAMES", syscall.EINVAL}},
			{[]int{-1}, nil, StartError{"pass", "", syscall.EBADF}},
			{[]int{gone}, nil, StartError{"pass", "", syscall.EBADF}},
		} {
			spec := sh("exit 0")
			spec.Files, spec.ListenNames = test.files, test.names
			p.Start(Token(i), spec)
			if ev := p.take(t, 1); ev[0].Kind != StartFailed || *ev[0].Err != test.want {
				t.Errorf("%v %v: %+v", test.files, test.names, ev[0])
			}
		}
		if !p.fork {
			return
		}
		spec := sh("exit 0")
		spec.Files, spec.ListenNames = []int{fd}, []string{"a"}
		p.Start(99, spec)
		if ev := p.take(t, 1); ev[0].Kind != StartFailed || ev[0].Err.Error() != "clone3 for LISTEN_PID: function not implemented" {
			t.Errorf("%+v", ev[0])
		}
	})
}
