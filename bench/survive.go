package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// What becomes of a program when its supervisor is killed by SIGKILL and started
// again: a table, with pids and pidfs inodes.

// survivor is a supervisor in this trial.
type survivor struct {
	name    string
	program string
	// prepare writes what it needs into dir, to keep command running, and
	// returns its arguments.
	prepare func(dir string, command []string) ([]string, error)
}

// survivors are the supervisors, each the process that holds the program itself.
func survivors(sentryd string) []survivor {
	return []survivor{
		{"sentryd", sentryd, func(dir string, command []string) ([]string, error) {
			conf := filepath.Join(dir, "trial.yaml")
			err := os.WriteFile(conf, fmt.Appendf(nil, "http: {listen: none}\nentries:\n  trial: {command: %q, delay: 0}\n", strings.Join(command, " ")), 0o600)
			return []string{"start", "-c", conf, "--runtime-dir", filepath.Join(dir, "run")}, err
		}},
		{"supervisord", "supervisord", func(dir string, command []string) ([]string, error) {
			conf := filepath.Join(dir, "supervisord.conf")
			err := os.WriteFile(conf, fmt.Appendf(nil, "[supervisord]\nnodaemon=true\nlogfile=%[1]s/log\npidfile=%[1]s/pid\nchildlogdir=%[1]s\n"+
				"user=%[3]s\n[program:trial]\ncommand=%[2]s\nautorestart=true\nstartsecs=0\n", dir, strings.Join(command, " "), strconv.Itoa(os.Geteuid())), 0o600)
			return []string{"-c", conf}, err
		}},
		{"runit (runsv)", "runsv", func(dir string, command []string) ([]string, error) {
			return []string{dir}, runScript(dir, command)
		}},
		{"s6 (s6-supervise)", "s6-supervise", func(dir string, command []string) ([]string, error) {
			return []string{dir}, runScript(dir, command)
		}},
		{"monit", "monit", func(dir string, command []string) ([]string, error) {
			start := filepath.Join(dir, "start")
			pid := filepath.Join(dir, "pid")
			script := fmt.Sprintf("#!/bin/sh\nexport %s=%s\n%s &\necho $! >%s\n", trialMark, dir, strings.Join(command, " "), pid)
			if err := os.WriteFile(start, []byte(script), 0o700); err != nil {
				return nil, err
			}
			conf := filepath.Join(dir, "monitrc")
			err := os.WriteFile(conf, fmt.Appendf(nil, "set daemon 1\nset idfile %[1]s/id\nset statefile %[1]s/state\nset pidfile %[1]s/monit.pid\n"+
				"check process trial with pidfile %[2]s\n  start program = \"%[3]s\"\n", dir, pid, start), 0o600)
			return []string{"-I", "-c", conf}, err
		}},
	}
}

func runScript(dir string, command []string) error {
	return os.WriteFile(filepath.Join(dir, "run"), []byte("#!/bin/sh\nexec "+strings.Join(command, " ")+"\n"), 0o700)
}

// trialMark is in the environment of everything that a trial starts, with the
// trial's directory.
const trialMark = "SENTRYD_BENCH_TRIAL"

// lull is how long a supervisor may take to do what it does: a polling one
// looks every second.
const lull = 3 * time.Second

// surviveAll plays the trial with each and prints the table.
func surviveAll(ctx context.Context, r *rig) error {
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "supervisor\tbefore\tafter SIGKILL\tafter a new start\tits program is killed\tverdict")
	for _, s := range survivors(r.sentryd) {
		path, missing := find(s.program)
		if missing != "" {
			fmt.Fprintf(out, "%s\t%s\n", s.name, missing)
			continue
		}
		s.program = path
		cells, err := s.trial(ctx, r)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(out, "%s\t%s\n", s.name, strings.Join(cells, "\t"))
	}
	return out.Flush()
}

// trial is one supervisor's: what was seen at each look, and a verdict.
func (s *survivor) trial(ctx context.Context, r *rig) (cells []string, err error) {
	dir, err := os.MkdirTemp(r.run, "trial-")
	if err != nil {
		return nil, err
	}
	defer killMarked(dir)
	args, err := s.prepare(dir, []string{"sleep", "100000"})
	if err != nil {
		return nil, err
	}
	run := func() (*process, error) {
		return startEnv(dir, s.name, true, []string{trialMark + "=" + dir}, (*exec.Cmd).Start, append([]string{s.program}, args...)...)
	}
	look := func() []string {
		programs := trialPrograms(dir)
		shown := "none"
		if len(programs) > 0 {
			shown = strings.Join(programs, ", ")
		}
		cells = append(cells, shown)
		return programs
	}
	first, err := run()
	if err != nil {
		return nil, err
	}
	defer first.close()
	if err := await(ctx, 4*lull, "the program is started", func() (bool, error) {
		return len(trialPrograms(dir)) > 0, first.check()
	}); err != nil {
		return nil, err
	}
	before := look()
	if err := first.signal(unix.SIGKILL); err != nil {
		return nil, err
	}
	if err := first.wait(ctx, lull); err != nil {
		return nil, err
	}
	look()
	second, err := run()
	if err != nil {
		return nil, err
	}
	defer second.close()
	if err := pause(ctx, lull); err != nil {
		return nil, err
	}
	after := look()
	if len(after) == 0 {
		_ = second.signal(unix.SIGTERM)
		return append(cells, "-", "lost"), nil
	}
	// Does the new supervisor see the end of the program that it found?
	killProgram(dir, after[0])
	_ = await(ctx, lull, "a new one", func() (bool, error) { // or never: that is what is asked
		now := trialPrograms(dir)
		return len(now) == len(after) && !slices.Equal(now, after), nil
	})
	final := look()
	// In an orderly way, so that it leaves no cgroup; what does not care is killed.
	if second.signal(unix.SIGTERM) == nil {
		_ = second.wait(ctx, lull)
	}
	switch {
	case len(after) > 1:
		return append(cells, "doubled"), nil
	case !slices.Equal(before, after):
		return append(cells, "ended and started anew"), nil
	case len(final) == 1:
		return append(cells, "kept"), nil
	}
	return append(cells, "not seen any more"), nil
}

// trialPrograms returns the programs of a trial, oldest first, each as its pid
// and pidfs inode.
func trialPrograms(dir string) (programs []string) {
	eachMarked(dir, func(pid, pidfd int, command string) {
		var st unix.Stat_t
		if command == "sleep" && unix.Fstat(pidfd, &st) == nil {
			programs = append(programs, fmt.Sprintf("%d (inode %d)", pid, st.Ino))
		}
	})
	return programs
}

// eachMarked calls f for each live process that has the trial's mark.
func eachMarked(dir string, f func(pid, pidfd int, command string)) {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(filepath.Base(name)); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	mark := []byte(trialMark + "=" + dir)
	for _, pid := range pids {
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		// Empty once the process is dead; and what is read is of the process that
		// the pidfd holds, unless that has ended.
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool { return bytes.Equal(v, mark) }) && !(child{pidfd}).ended() {
			f(pid, pidfd, strings.TrimSpace(string(command)))
		}
		unix.Close(pidfd)
	}
}

// killProgram ends one program of a trial.
func killProgram(dir, program string) {
	eachMarked(dir, func(pid, pidfd int, _ string) {
		if strings.HasPrefix(program, strconv.Itoa(pid)+" ") {
			_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) // it may have ended
		}
	})
}

// killMarked leaves nothing of a trial: supervisors first, so that they start
// nothing more, and all again for what was started meanwhile.
func killMarked(dir string) {
	for range 3 {
		for _, programs := range []bool{false, true} {
			eachMarked(dir, func(_, pidfd int, command string) {
				if (command == "sleep") == programs {
					_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) // it may have ended
				}
			})
		}
	}
}
