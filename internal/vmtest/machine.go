package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
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

// command is qemu without hardware support: KVM is not to be had in every CI,
// and not to be trusted where virtual machines are nested. There is no network
// and no disk; the first serial port is the console, the second one brings the
// events.
func (m machine) command(ctx context.Context, events *os.File) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off",
		"-smp", "2", "-m", strconv.Itoa(m.mib),
		"-kernel", m.image, "-initrd", m.initrd,
		// panic=-1: a panic resets, which -no-reboot turns into the end of qemu.
		"-append", "console=ttyS0 panic=-1 quiet mitigations=off random.trust_cpu=on",
		"-serial", "file:"+m.console,
		"-chardev", "file,id=events,path=/dev/fd/3", "-serial", "chardev:events",
	)
	cmd.ExtraFiles = []*os.File{events}
	cmd.Stderr = os.Stderr
	return cmd
}

// run boots the machine and calls f for each event, until it switches itself
// off or the limit is over, when it is an error not to have come to the end.
func (m machine) run(ctx context.Context, limit time.Duration, f func(verdict.Event), raw func(string)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	kept, err := os.Create(m.events)
	if err != nil {
		out.Close()
		return err
	}
	defer kept.Close()
	cmd := m.command(ctx, out)
	err = cmd.Start()
	out.Close()
	if err != nil {
		return fmt.Errorf("start qemu: %w: apt-get install qemu-system-x86", err)
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
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("the machine was ended: %w after %v", ctx.Err(), limit)
	case waitErr != nil:
		return fmt.Errorf("qemu: %w", waitErr)
	case readErr != nil:
		return readErr
	case !done:
		return errors.New("the machine ended before its tests had")
	}
	return nil
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
