package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// The names of the contenders, as printed and as matched by -only.
const (
	floorC       = "C floor"
	floorCListen = "C floor, listener"
	floorGo      = "Go floor"
	sentrydMain  = "sentryd"
	sentrydBare  = "sentryd, no cgroups"
	sentrydQuiet = "sentryd, connector off"
	supervisord  = "supervisord"
	dinit        = "dinit"
)

// contender is a supervisor under test.
type contender struct {
	name    string
	about   string // how it runs, above all where its children's output goes
	missing string // why it cannot run here; empty if it can
	// prepare writes what the contender needs into dir and returns its command
	// line. command gives the command of a child, with slot in the place of the
	// slot's number: what the contender itself replaces by it.
	prepare    func(dir string, j job, command func(slot string) []string) ([]string, error)
	launch     func(*exec.Cmd) error // how it is started; nil: like any program
	keepOutput bool                  // its standard output goes to a file, as under a service manager, not to /dev/null
	listener   bool                  // with a listener of the proc connector beside it
	peer       bool                  // another project's: slower, so it sits out the later rounds
}

func (r *rig) allContenders(sentryd, dinitPath string) []*contender {
	noRoot := ""
	if os.Geteuid() != 0 {
		noRoot = "needs root: to listen to the proc connector"
	}
	tree := cgroup2()
	noTree := ""
	switch {
	case tree == "":
		noTree = "there is no cgroup v2 here, so that sentryd is without it anyway"
	case os.Geteuid() != 0:
		noTree = "needs root: to hide the tree of cgroup v2"
	}
	floor := func(program string) func(string, job, func(string) []string) ([]string, error) {
		return func(_ string, j job, command func(string) []string) ([]string, error) {
			child := command("")
			// The floors put the number in the place of the slot themselves.
			return append([]string{r.program(program), strconv.Itoa(j.slots), child[0], child[1]}, child[3:]...), nil
		}
	}
	superPath, superMissing := find("supervisord")
	dinitPath, dinitMissing := find(dinitPath)
	return []*contender{
		{name: floorC, about: "two threads, output to /dev/null", prepare: floor("floor")},
		{name: floorCListen, about: "the same, while a C program listens to the proc connector", prepare: floor("floor"), listener: true, missing: noRoot},
		{name: floorGo, about: "two threads, syscall.ForkExec with PidFD, output to /dev/null", prepare: floor("floorgo")},
		{name: sentrydMain, about: "connector on, output captured (defaults)", prepare: prepareSentryd(sentryd, true), keepOutput: true},
		{name: sentrydBare, about: "the same, where it sees no cgroup v2: the engine without containment in cgroups", prepare: prepareSentryd(sentryd, true), keepOutput: true, launch: hiding(tree), missing: noTree},
		{name: sentrydQuiet, about: "proc_connector.enabled: false, output captured", prepare: prepareSentryd(sentryd, false), keepOutput: true},
		{name: supervisord, about: "startsecs=0, autorestart=true, output captured into files (defaults)", prepare: prepareSupervisord(superPath), missing: superMissing, keepOutput: true, peer: true},
		{name: dinit, about: "restart, restart-delay=0, smooth-recovery, output captured into buffers", prepare: prepareDinit(dinitPath), missing: dinitMissing, keepOutput: true, peer: true},
	}
}

func find(program string) (path, missing string) {
	path, err := exec.LookPath(program)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", "not installed"
	}
	return path, ""
}

// sentrydSocket is where a sentryd started by prepareSentryd answers.
func sentrydSocket(dir string) string { return filepath.Join(dir, "run", "bench", "control.sock") }

func prepareSentryd(program string, connector bool) func(string, job, func(string) []string) ([]string, error) {
	return func(dir string, j job, command func(string) []string) ([]string, error) {
		var quoted []string
		for _, a := range command("$(SENTRYD_SLOT)") {
			quoted = append(quoted, strconv.Quote(a))
		}
		conf := filepath.Join(dir, "bench.yaml")
		text := fmt.Sprintf(`http:
  listen: none
proc_connector:
  enabled: %t
entries:
  bench:
    command: [%s]
    delay: 0
    count: %d
`, connector, strings.Join(quoted, ", "), j.slots)
		if j.attributes {
			text += everyAttribute()
		}
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			return nil, err
		}
		return []string{program, "start", "-c", conf, "--runtime-dir", filepath.Join(dir, "run")}, nil
	}
}

// everyAttribute is all that an entry can ask of its processes, with values
// that change nothing of their speed or of what they may reach. A plain user
// cannot have all of it.
func everyAttribute() string {
	cpus := make([]string, runtime.NumCPU())
	for i := range cpus {
		cpus[i] = strconv.Itoa(i)
	}
	text := fmt.Sprintf("    umask: \"077\"\n    nice: 0\n    oom_score_adj: 0\n    cpu_affinity: [%s]\n"+
		"    rlimits: {core: 0, nofile: 256}\n    no_new_privileges: true\n", strings.Join(cpus, ", "))
	if os.Geteuid() == 0 {
		text += "    user: root\n    group: root\n    groups: []\n    capabilities: []\n"
	}
	return text
}

func prepareSupervisord(program string) func(string, job, func(string) []string) ([]string, error) {
	return func(dir string, j job, command func(string) []string) ([]string, error) {
		conf := filepath.Join(dir, "supervisord.conf")
		logs := filepath.Join(dir, "logs")
		if err := os.Mkdir(logs, 0o700); err != nil {
			return nil, err
		}
		user := ""
		if os.Geteuid() == 0 {
			user = "user=root\n"
		}
		// Two pipes and a file a child; more than needed costs it at each start,
		// since its children close every number below minfds.
		minfds := max(1024, 3*j.slots+128)
		text := fmt.Sprintf(`[supervisord]
nodaemon=true
logfile=%[1]s/supervisord.log
pidfile=%[1]s/supervisord.pid
childlogdir=%[2]s
minfds=%[3]d
%[4]s
[program:bench]
command=%[5]s
process_name=%%(program_name)s_%%(process_num)d
numprocs=%[6]d
startsecs=0
startretries=1000000
autorestart=true
redirect_stderr=true
`, dir, logs, minfds, user, strings.Join(command("%(process_num)d"), " "), j.slots)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			return nil, err
		}
		return []string{program, "-c", conf}, nil
	}
}

func prepareDinit(program string) func(string, job, func(string) []string) ([]string, error) {
	return func(dir string, j job, command func(string) []string) ([]string, error) {
		services := filepath.Join(dir, "dinit.d")
		wanted := filepath.Join(services, "boot.d")
		if err := os.MkdirAll(wanted, 0o700); err != nil {
			return nil, err
		}
		boot := "type = internal\nwaits-for.d = boot.d\n"
		if err := os.WriteFile(filepath.Join(services, "boot"), []byte(boot), 0o600); err != nil {
			return nil, err
		}
		for i := range j.slots {
			name := "bench" + strconv.Itoa(i)
			text := fmt.Sprintf("type = process\ncommand = %s\nrestart = true\nsmooth-recovery = true\n"+
				"restart-delay = 0\nrestart-limit-count = 0\nlog-type = buffer\n", strings.Join(command(strconv.Itoa(i)), " "))
			if err := os.WriteFile(filepath.Join(services, name), []byte(text), 0o600); err != nil {
				return nil, err
			}
			if err := os.Symlink("../"+name, filepath.Join(wanted, name)); err != nil {
				return nil, err
			}
		}
		// --user: whoever we are, it must never think that it manages the system.
		return []string{program, "--user", "--services-dir", services, "--socket-path", filepath.Join(dir, "dinit.sock"),
			"--log-file", filepath.Join(dir, "dinit.log"), "boot"}, nil
	}
}

// listener is a running c/listen.c.
type listener struct {
	cmd *exec.Cmd
	in  io.Closer
}

// listen returns when the listener is subscribed.
func listen(program string) (*listener, error) {
	l := &listener{cmd: exec.Command(program)}
	in, err := l.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	l.in = in
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	l.cmd.Stderr = &stderr
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := l.cmd.Start(); err != nil {
		return nil, err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		in.Close()
		l.cmd.Wait()
		return nil, fmt.Errorf("listen: %q: %w: %s", line, err, stderr.String())
	}
	return l, nil
}

// close ends the listener: it leaves at the end of its input.
func (l *listener) close() error {
	l.in.Close()
	if err := l.cmd.Wait(); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// runs says whether process pid has arg among its arguments.
func runs(pid int, arg string) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && bytes.Contains(data, append([]byte{0}, arg+"\x00"...))
}
