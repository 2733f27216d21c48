package spawn

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// stranger is a user that nobody is.
const stranger = 54321

func sleeper() *Spec { return &Spec{Path: "/bin/sleep", Args: []string{"sleep", "1000"}} }

// procStatus returns fields of /proc/PID/status.
func procStatus(t *testing.T, pid string, names ...string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		if slices.Contains(names, name) {
			got[name] = strings.Join(strings.Fields(value), " ")
		}
	}
	return got
}

var everyField = []string{"Uid", "Gid", "Groups", "Umask", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Cpus_allowed_list", "SigBlk", "SigIgn", "SigCgt"}

// more returns what /proc shows of a child elsewhere: nice, oom_score_adj and
// limits.
func more(t *testing.T, pid string) string {
	t.Helper()
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	oom, err := os.ReadFile("/proc/" + pid + "/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprintf("nice %s oom %s", strings.Fields(rest)[16], strings.TrimSpace(string(oom)))
	limits, err := os.ReadFile("/proc/" + pid + "/limits")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		for _, name := range []string{"Max open files", "Max processes", "Max core file size"} {
			if rest, ok := strings.CutPrefix(line, name+" "); ok {
				out += " " + strings.Join(strings.Fields(rest)[:2], "/")
			}
		}
	}
	return out
}

// everything is a Spec with every attribute, which needs root, though no more
// than root has in a container.
func everything() *Spec {
	s := sleeper()
	umask, nice, oom := 0o027, 3, 200
	s.Dir = "/"
	s.Attributes = &Attributes{
		Credential: &Credential{UID: stranger, GID: 54322, Groups: []uint32{54323, 54324}, Name: "stranger"},
		Umask:      &umask, Nice: &nice, OOMScoreAdj: &oom, CPUs: []int{0},
		Limits: []Limit{
			{unix.RLIMIT_NOFILE, 100, 200, "nofile"},
			{unix.RLIMIT_NPROC, 5, 6, "nproc"},
			{unix.RLIMIT_CORE, 0, 0, "core"},
		},
		Capabilities:    []int{unix.CAP_NET_BIND_SERVICE},
		NoNewPrivileges: true,
	}
	return s
}

func TestAttributes(t *testing.T) {
	testenv.Need(t, testenv.Root())
	p := newTestPool(t, Options{}, nil)
	if p.fork {
		t.Skip("needs clone3(2)")
	}
	spec := everything()
	set := uint64(1) << unix.CAP_NET_BIND_SERVICE
	// And one of the upper half, where we have any.
	own, err := strconv.ParseUint(procStatus(t, "self", "CapPrm")["CapPrm"], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	if n := bits.Len64(own) - 1; n >= 32 {
		spec.Attributes.Capabilities = append(spec.Attributes.Capabilities, n)
		set |= 1 << n
	}
	caps := fmt.Sprintf("%016x", set)
	pid := startOne(t, p, 1, spec)
	want := map[string]string{
		"Uid": "54321 54321 54321 54321", "Gid": "54322 54322 54322 54322", "Groups": "54323 54324", "Umask": "0027",
		"CapInh": caps, "CapPrm": caps, "CapEff": caps, "CapBnd": caps, "CapAmb": caps,
		"NoNewPrivs": "1", "Cpus_allowed_list": "0",
		"SigBlk": "0000000000000000", "SigIgn": "0000000000000000", "SigCgt": "0000000000000000",
	}
	if diff := cmp.Diff(want, procStatus(t, pid, everyField...)); diff != "" {
		t.Error(diff)
	}
	if got, want := more(t, pid), "nice 3 oom 200 0/0 5/6 100/200"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if cwd, err := os.Readlink("/proc/" + pid + "/cwd"); cwd != "/" {
		t.Error(cwd, err)
	}
	if fds := childFDs(t, pid); !slices.Equal(fds[:3], upTo(3)) || slices.Contains(fds, 64) {
		t.Error(fds)
	}

	// Nothing of that is ours now, nor the next child's.
	if diff := cmp.Diff(procStatus(t, "self", everyField[:11]...), procStatus(t, startOne(t, p, 2, sleeper()), everyField[:11]...)); diff != "" {
		t.Error(diff)
	}
	if got, want := more(t, startOne(t, p, 3, sleeper())), more(t, "self"); strings.Fields(got)[1] != strings.Fields(want)[1] {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestCapabilities looks at what is left with each way to ask.
func TestCapabilities(t *testing.T) {
	testenv.Need(t, testenv.Root())
	p := newTestPool(t, Options{}, nil)
	if p.fork {
		t.Skip("needs clone3(2)")
	}
	names := []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}
	all := procStatus(t, "self", "CapBnd")["CapBnd"]
	const none, bind = "0000000000000000", "0000000000000400"
	user := &Credential{UID: stranger, GID: stranger, Groups: []uint32{}}
	for i, test := range []struct {
		attr Attributes
		want string
	}{
		{Attributes{Credential: user}, "0 0 0 all 0"},
		{Attributes{Credential: user, NoNewPrivileges: true}, "0 0 0 all 0"},
		{Attributes{Credential: user, Capabilities: []int{}}, "0 0 0 0 0"},
		{Attributes{Credential: user, Capabilities: []int{10}}, "bind bind bind bind bind"},
		{Attributes{Capabilities: []int{}}, "0 0 0 0 0"},
		{Attributes{Capabilities: []int{10}}, "bind bind bind bind bind"},
		{Attributes{Capabilities: []int{10}, NoNewPrivileges: true}, "bind bind bind bind bind"},
		{Attributes{Credential: &Credential{Name: "root"}, Capabilities: []int{10}}, "bind bind bind bind bind"},
	} {
		s := sleeper()
		s.Attributes = &test.attr
		got := procStatus(t, startOne(t, p, Token(i), s), names...)
		for j, want := range strings.Fields(test.want) {
			want = map[string]string{"0": none, "bind": bind, "all": all}[want]
			if got[names[j]] != want {
				t.Errorf("%d: %s is %s, want %s", i, names[j], got[names[j]], want)
			}
		}
	}
}

// TestFileCapabilities: a program with file capabilities has them under another
// user, as it would from a shell, but not with no_new_privs or outside the
// bounding set.
func TestFileCapabilities(t *testing.T) {
	testenv.Need(t, testenv.Root())
	p := newTestPool(t, Options{}, nil)
	if p.fork {
		t.Skip("needs clone3(2)")
	}
	s := static(t, pause())
	for dir := filepath.Dir(s.Path); dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// struct vfs_cap_data, version 2 and effective: CAP_NET_BIND_SERVICE permitted.
	data := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if err := unix.Setxattr(s.Path, "security.capability", data, 0); err != nil {
		t.Skip("needs file capabilities:", err)
	}
	user := &Credential{UID: stranger, GID: stranger, Groups: []uint32{}}
	for i, test := range []struct {
		attr Attributes
		want string
	}{
		{Attributes{Credential: user}, "0000000000000400"},
		{Attributes{Credential: user, NoNewPrivileges: true}, "0000000000000000"},
		{Attributes{Credential: user, NoNewPrivileges: true, Capabilities: []int{10}}, "0000000000000400"},
	} {
		s.Attributes = &test.attr
		pid := startOne(t, p, Token(i), s)
		if got := procStatus(t, pid, "CapPrm")["CapPrm"]; got != test.want {
			t.Errorf("%d: %s, want %s", i, got, test.want)
		}
	}
	// execve(2) refuses a program that would lack what its file says it needs.
	s.Attributes = &Attributes{Credential: user, Capabilities: []int{}}
	p.Start(99, s)
	if ev := p.take(t, 1); ev[0].Kind != StartFailed || *ev[0].Err != (StartError{"exec", s.Path, syscall.EPERM}) {
		t.Errorf("%+v", ev[0])
	}
}

// TestCredentialByFork: what syscall can do it does, and the rest is refused.
func TestCredentialByFork(t *testing.T) {
	testenv.Need(t, testenv.Root())
	p := newTestPool(t, Options{}, func(p *Pool) { p.fork = true })
	s := sleeper()
	s.Attributes = &Attributes{Credential: everything().Attributes.Credential}
	want := map[string]string{"Uid": "54321 54321 54321 54321", "Gid": "54322 54322 54322 54322", "Groups": "54323 54324", "CapPrm": "0000000000000000"}
	if diff := cmp.Diff(want, procStatus(t, startOne(t, p, 1, s), "Uid", "Gid", "Groups", "CapPrm")); diff != "" {
		t.Error(diff)
	}
	one, e := 1, everything().Attributes
	for i, test := range []struct {
		attr Attributes
		want string
	}{
		{Attributes{Umask: &one}, "umask"},
		{Attributes{Nice: &one}, "nice"},
		{Attributes{OOMScoreAdj: &one}, "oom_score_adj"},
		{Attributes{CPUs: e.CPUs}, "cpu_affinity"},
		{Attributes{Limits: e.Limits}, "rlimits"},
		{Attributes{Capabilities: []int{}}, "capabilities"},
		{Attributes{NoNewPrivileges: true}, "no_new_privileges"},
	} {
		s.Attributes = &test.attr
		p.Start(Token(i+2), s)
		if ev := p.take(t, 1); ev[0].Kind != StartFailed || ev[0].Err.Error() != "clone3 for "+test.want+": function not implemented" {
			t.Errorf("%s: %+v", test.want, ev[0])
		}
	}
}

// TestAttributeErrors: what a plain user may not, by the name of the step.
func TestAttributeErrors(t *testing.T) {
	testenv.Need(t, testenv.Root()) // to become a plain user
	runHelper(t, "plain")
}

func helpPlain() error {
	if err := syscall.Setgroups([]int{stranger}); err != nil {
		return err
	}
	if err := syscall.Setgid(stranger); err != nil {
		return err
	}
	if err := syscall.Setuid(stranger); err != nil {
		return err
	}
	// A process that changed its user owns nothing in its own /proc.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return err
	}
	p, err := New(Options{})
	if err != nil {
		return err
	}
	minus, oom, all := -5, -500, everything().Attributes
	own := Credential{UID: stranger, GID: stranger, Name: "me"}
	other, group, groups := own, own, own
	other.UID, other.Name = stranger+1, "deploy"
	group.GID++
	groups.Groups = []uint32{stranger}
	var token Token
	for _, test := range []struct {
		attr Attributes
		want string
	}{
		{Attributes{Credential: &own, Limits: all.Limits[2:], CPUs: all.CPUs, NoNewPrivileges: true, Umask: all.Umask}, ""},
		{Attributes{Credential: &other}, "setuid deploy: operation not permitted"},
		{Attributes{Credential: &group}, "setgid 54322: operation not permitted"},
		{Attributes{Credential: &groups}, "setgroups me: operation not permitted"},
		{Attributes{Nice: &minus}, "setpriority -5: permission denied"},
		{Attributes{OOMScoreAdj: &oom}, "oom_score_adj -500: permission denied"},
		{Attributes{Limits: []Limit{{unix.RLIMIT_NOFILE, 5, 1 << 40, "nofile"}}}, "setrlimit nofile: operation not permitted"},
		{Attributes{Capabilities: []int{}}, "drop capability 0: operation not permitted"},
		{Attributes{CPUs: []int{1023}}, "sched_setaffinity: invalid argument"},
	} {
		s := &Spec{Path: "/bin/true", Attributes: &test.attr}
		token++
		p.Start(token, s)
		ev, err := helpEvents(p, 1)
		if err != nil {
			return err
		}
		if test.want == "" {
			if len(ev) == 1 {
				_, err = helpEvents(p, 1)
			}
			if err != nil || ev[0].Kind != Started {
				return fmt.Errorf("%+v: %v", ev[0], err)
			}
			continue
		}
		if ev[0].Kind != StartFailed || ev[0].Err.Error() != test.want {
			return fmt.Errorf("want %s: %+v", test.want, ev[0])
		}
	}
	p.Close()
	return nil
}

// TestUndumpable: once a child of another user has shared our memory, that
// user's processes may not look into it by way of the next.
func TestUndumpable(t *testing.T) {
	testenv.Need(t, testenv.Root())
	p := newTestPool(t, Options{}, nil)
	if p.fork {
		t.Skip("needs clone3(2)")
	}
	if mode, err := os.ReadFile("/proc/sys/fs/suid_dumpable"); err != nil || string(mode) == "1\n" {
		t.Skipf("needs fs.suid_dumpable to be 0 or 2, it is %s (%v)", mode, err)
	}
	startOne(t, p, 1, everything())
	if n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || n == 1 {
		t.Errorf("dumpable: %d, %v", n, err)
	}
}

// TestDirectoryOfUser: a child goes to its directory as who it is.
func TestDirectoryOfUser(t *testing.T) {
	testenv.Need(t, testenv.Root())
	p := newTestPool(t, Options{}, nil)
	s := sleeper()
	s.Dir = t.TempDir()
	if err := os.Chmod(s.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.Attributes = &Attributes{Credential: &Credential{UID: stranger, GID: stranger, Groups: []uint32{}}}
	p.Start(1, s)
	ev := p.take(t, 1)
	if ev[0].Kind != StartFailed || !errors.Is(ev[0].Err, syscall.EACCES) || !p.fork && ev[0].Err.Op != "chdir" {
		t.Errorf("%+v", ev[0])
	}
}

// TestOOMScoreStays: what makes this process the first to go holds for its
// children as well.
func TestOOMScoreStays(t *testing.T) { checkOOMScores(t, map[string]string{"0": "0", "300": "300"}) }

// TestNoProtection: what protects this process from the OOM killer does not
// protect a child.
func TestNoProtection(t *testing.T) {
	testenv.Need(t, testenv.SysResource())
	checkOOMScores(t, map[string]string{"-1": "0", "-500": "0"})
}

// TestNoProtectionAnywhere is TestNoProtection for a host that forbids it.
func TestNoProtectionAnywhere(t *testing.T) {
	both(t, func(t *testing.T, p *Pool) {
		one := 1
		p.oom = &one
		if got := more(t, startOne(t, p, 1, sleeper())); !strings.Contains(got, " oom 1 ") {
			t.Error(got)
		}
	})
}

func checkOOMScores(t *testing.T, scores map[string]string) {
	for own, want := range scores {
		got := runHelper(t, "oom", "/bin/sh", "-c", "echo "+own+` >/proc/self/oom_score_adj; exec "$0"`)
		if got != own+" "+want+" "+want+"\n" {
			t.Errorf("own score %s: own, child's and that of a child by fork are %s", own, got)
		}
	}
}

func helpOOM() error {
	var seen []string
	for _, fork := range []bool{false, true} {
		p, err := newPool(Options{}, func(p *Pool) { p.fork = p.fork || fork })
		if err != nil {
			return err
		}
		p.Start(1, sleeper())
		ev, err := helpEvents(p, 1)
		if err != nil {
			return err
		}
		score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", ev[0].PID))
		if err != nil {
			return err
		}
		seen = append(seen, strings.TrimSpace(string(score)))
		p.killAll()
		p.Close()
	}
	fmt.Println(ownOOMScoreAdj(), strings.Join(seen, " "))
	return nil
}

// steps returns the names of the steps of a start.
func steps(t *testing.T, p *Pool, attr *Attributes) []string {
	t.Helper()
	fds := [3]int{10, 11, 11}
	var g program
	if !g.setup(&target{path: "/bin/true", args: []string{"true"}, attr: attr}, &fds, -1, p) {
		t.Fatal("NUL")
	}
	var ops []string
	for _, n := range g.names {
		if n.op != "sigaction" { // of what whoever runs the test has ignored
			ops = append(ops, n.op)
		}
	}
	return ops
}

// TestStepsAsked: a child for which nothing is asked takes no step more than it
// has to, and each attribute costs what it is.
func TestStepsAsked(t *testing.T) {
	p := newTestPool(t, Options{}, nil)
	p.orig = origLimit{}
	plain := []string{"close_range", "setsid", "dup", "dup", "dup", "close_range", "sigprocmask", "exec"}
	if diff := cmp.Diff(plain, steps(t, p, nil)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(plain, steps(t, p, &Attributes{})); diff != "" {
		t.Error(diff)
	}
	one := 1
	own := &Credential{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	for want, attr := range map[string]Attributes{
		"umask":                                  {Umask: &one},
		"setpriority":                            {Nice: &one},
		"sched_setaffinity":                      {CPUs: []int{0}},
		"setrlimit setrlimit":                    {Limits: make([]Limit, 2)},
		"no_new_privs":                           {NoNewPrivileges: true},
		"setgid setuid":                          {Credential: own},
		"setgroups setgid setuid":                {Credential: &Credential{UID: own.UID, Groups: []uint32{}}},
		"keep capabilities setgid setuid capset": {Credential: &Credential{UID: stranger}},
	} {
		got := steps(t, p, &attr)
		if extra := strings.Join(got[6:len(got)-2], " "); extra != want {
			t.Errorf("%s, want %s", extra, want)
		}
	}
}
