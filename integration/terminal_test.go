package integration

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestColours: on a terminal, unless NO_COLOR or a dumb terminal forbids.
func TestColours(t *testing.T) {
	d := startDaemon(t, several, options{})
	d.running("web", 2)
	const escape = "\x1b["
	for _, c := range []struct {
		env     string
		colours bool
	}{{"TERM=xterm", true}, {"NO_COLOR=1", false}, {"TERM=dumb", false}} {
		out := onTerminal(t, append(d.env, "TERM=xterm", c.env), d.cli, "-c", d.configPath(), "status", "web")
		if strings.Contains(out, escape) != c.colours || !strings.Contains(out, "web:1") {
			t.Errorf("with %s: %q", c.env, out)
		}
	}
	if out := d.must("status"); strings.Contains(out, escape) {
		t.Errorf("not on a terminal: %q", out)
	}
	d.stop()

	// The daemon itself: a colour an entry. What a child writes stays harmless.
	replaceFile(t, d.configPath(), "http: {listen: none}\nentries: {web: {command: [sh, -c, \"printf '\\\\033]0;owned\\\\007\\\\n'; exec sleep 1000\"]}}\n", 0o644)
	var lines string
	terminal(t, append(d.env, "TERM=xterm"), func(screen io.Reader) {
		buffer := make([]byte, 4096)
		for !strings.Contains(lines, "owned") {
			n, err := screen.Read(buffer)
			if err != nil {
				t.Errorf("the terminal: %v\n%q", err, lines)
				return
			}
			lines += string(buffer[:n])
		}
		d.must("stop")
	}, d.cli, "start", "-c", d.configPath())
	if !strings.Contains(lines, escape) || strings.Contains(lines, "\x1b]0;") {
		t.Errorf("on a terminal start prints %q", lines)
	}
}

// onTerminal runs a program on a terminal of its own and returns what it shows.
func onTerminal(t *testing.T, env []string, args ...string) string {
	t.Helper()
	var text []byte
	terminal(t, env, func(screen io.Reader) {
		// EIO is the end: nobody has the terminal open any more (pty(7)).
		text, _ = io.ReadAll(screen)
	}, args...)
	return string(text)
}

// terminal runs a program on a pseudo-terminal, whose screen show reads, and
// waits for its end.
func terminal(t *testing.T, env []string, show func(screen io.Reader), args ...string) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, tty, tty
	err = cmd.Start()
	tty.Close()
	if err != nil {
		t.Fatal(err)
	}
	show(screen)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%q: %v", args, err)
	}
}
