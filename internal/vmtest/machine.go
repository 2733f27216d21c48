package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/sentryd/sentryd/internal/verdict"
	"github.com/sentryd/sentryd/internal/vmtest/job"
)

// A machine is one virtual machine, not yet started.
type machine struct {
	image   string // path of vmlinuz
	initrd  string
	mib     int
	console string // the file that takes what the kernel and the guest print
	events  string // the file that keeps the tests' events
}

// What the kernel of a machine is told. From mitigations on it is for speed, by a factor
// of four: in emulation it costs most to fill memory by the byte, to leave the
// emulated code for a clock, and to translate code again that is found at another
// address.
var commandLine = strings.Join([]string{
	"console=ttyS0", "quiet",
	"panic=-1", // a panic resets, which -no-reboot turns into the end of qemu
	"random.trust_cpu=on",
	"no_timer_check", // of a timer that may come late on a busy host, and a panic if it does
	"mitigations=off",
	"init_on_alloc=0",
	"tsc=reliable", "clocksource=tsc",
	"norandmaps",
}, " ")

// processor has neither what makes the kernel fill memory by the byte (see
// commandLine) nor pages in five levels.
const processor = "max,la57=off,erms=off,fsrm=off"

// command is qemu without hardware support: KVM is not to be had in every CI,
// and not to be trusted where virtual machines are nested. There is no network
// and no disk; the first serial port is the console, the second one brings the
// events.
func (m machine) command(ctx context.Context, events *os.File) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", processor,
		"-smp", "2", "-m", strconv.Itoa(m.mib),
		"-kernel", m.image, "-initrd", m.initrd,
		"-append", commandLine,
		"-serial", "file:"+m.console,
		"-chardev", "file,id=events,path=/dev/fd/3", "-serial", "chardev:events",
	)
	cmd.ExtraFiles = []*os.File{events}
	cmd.Stderr = os.Stderr
	return cmd
}

// run boots the machine and calls f for each event, until it switches itself
// off or the limit is over, when it is an error not to have come to the end. It
// returns the processor time that this took.
func (m machine) run(ctx context.Context, limit time.Duration, f func(verdict.Event), raw func(string)) (cpu time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	in, out, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer in.Close()
	kept, err := os.Create(m.events)
	if err != nil {
		out.Close()
		return 0, err
	}
	defer kept.Close()
	cmd := m.command(ctx, out)
	err = cmd.Start()
	out.Close()
	if err != nil {
		return 0, fmt.Errorf("start qemu: %w: apt-get install qemu-system-x86", err)
	}
	done := false
	readErr := verdict.Decode(io.TeeReader(in, kept), func(e verdict.Event) {
		if e.Action == job.Done {
			done = true
			return
		}
		f(e)
	}, raw)
	waitErr := cmd.Wait()
	cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	switch {
	case ctx.Err() != nil:
		return cpu, fmt.Errorf("the machine was ended: %w after %v", ctx.Err(), limit)
	case waitErr != nil:
		return cpu, fmt.Errorf("qemu: %w", waitErr)
	case readErr != nil:
		return cpu, readErr
	case !done:
		return cpu, errors.New("the machine ended before its tests had")
	}
	return cpu, nil
}

// broke says whether the machine that ran last was ended by a fault of qemu's: in
// its emulation of two processors one of them can run into the breakpoint of a
// patch of the kernel's code that is long done, which no kernel knows what to do
// with. Nothing that a process does brings that about otherwise. See keepPatches
// in guest/ for what is done against it.
func (m machine) broke() bool {
	text, err := os.ReadFile(m.console)
	return err == nil && bytes.Contains(text, []byte("int3: 0000 [#")) // Linux 6.10 put "Oops: " before it
}

// tail copies the end of a file.
func tail(w io.Writer, name string, most int64) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return err
		}
	}
	_, err = io.Copy(w, f)
	return err
}
