package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/verdict"
	"github.com/sentryd/sentryd/internal/vmtest/job"
)

// The second serial port takes the events; the first one is the kernel's.
const eventsPort = "/dev/ttyS1"

// runJob runs every test of the job, those that want systemd or the others, and
// writes what they print to the host, as test2json translates it.
func runJob(systemd bool) error {
	j, err := readJob()
	if err != nil {
		return err
	}
	out, err := openRaw(eventsPort)
	if err != nil {
		return err
	}
	defer out.Close()
	tests := j.Tests
	if systemd {
		tests = j.Systemd
	}
	for _, t := range tests {
		if err := runTest(j, t, out); err != nil {
			return err
		}
	}
	if len(j.Systemd) > 0 && !systemd {
		return nil
	}
	return json.NewEncoder(out).Encode(verdict.Event{Action: job.Done})
}

// runTest runs one binary below test2json, which ends as the binary does.
func runTest(j job.Job, t job.Test, out io.Writer) error {
	var stderr bytes.Buffer
	cmd := exec.Command("/bin/test2json", append([]string{"-t", "-p", t.Package}, t.Args...)...)
	cmd.Dir = t.Dir
	cmd.Env = append([]string{"PATH=" + j.Path, "HOME=/root", "USER=root", "TMPDIR=/tmp", "TERM=dumb"}, append(j.Env, t.Env...)...)
	cmd.Stdout, cmd.Stderr = out, &stderr
	begin := time.Now()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("run the tests of %s: %w", t.Package, err)
	}
	if stderr.Len() > 0 {
		fmt.Fprintf(os.Stderr, "guest: test2json, %s: %s\n", t.Package, stderr.Bytes())
	}
	how := job.Pass
	if err != nil {
		how = job.Fail
	}
	return json.NewEncoder(out).Encode(verdict.Event{Action: job.Ended, Package: t.Package, Output: how, Elapsed: time.Since(begin).Seconds()})
}

// openRaw opens a serial port so that bytes pass as they are.
func openRaw(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	fd := int(f.Fd())
	tio, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err == nil {
		tio.Oflag &^= unix.OPOST
		tio.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG
		tio.Cflag |= unix.CLOCAL
		err = unix.IoctlSetTermios(fd, unix.TCSETS, tio)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make %s raw: %w", path, err)
	}
	return f, nil
}
