package integration

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sentryd/sentryd/internal/testenv"
)

// TestDocumentation runs the tagged blocks of every page, each page a session
// of its own: HACKING.md says what the tags mean.
func TestDocumentation(t *testing.T) {
	testenv.Need(t, testenv.Tool("curl"))
	pages, err := filepath.Glob("../doc/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, "../README.md", "../HACKING.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		blocks, err := fences(string(text))
		if err != nil {
			t.Fatalf("%s: %v", page, err)
		}
		if len(blocks) == 0 {
			continue
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			s := newSession(t)
			for _, b := range blocks {
				s.play(b)
			}
		})
	}
}

// A session is an empty directory, a runtime directory and a port in which the
// commands of a page are run.
type session struct {
	t             *testing.T
	dir, run, bin string
	listen        string // stands for 127.0.0.1:8001
	env           []string
}

const defaultListen = "127.0.0.1:8001"

func newSession(t *testing.T) *session {
	t.Helper()
	s := &session{t: t, dir: t.TempDir(), run: t.TempDir(), bin: docsBinary(t), listen: freeAddress(t)}
	s.env = []string{
		"PATH=" + filepath.Dir(s.bin) + ":" + os.Getenv("PATH") + ":/usr/sbin:/sbin",
		"HOME=" + s.dir, "SENTRYD_RUNTIME_DIR=" + s.run, "LC_ALL=C.UTF-8",
	}
	return s
}

// play does what a block says.
func (s *session) play(b fence) {
	s.t.Helper()
	fail := func(format string, a ...any) {
		s.t.Helper()
		s.t.Fatalf("line %d: "+format, append([]any{b.line}, a...)...)
	}
	if b.lang == "yaml" {
		s.write(b.file, strings.Join(b.body, "\n")+"\n", b.verb != "check-fails")
		want := 0
		if b.verb == "check-fails" {
			want = 2
		}
		if code, out := s.shell("sentryd check -c ./" + b.file); code != want {
			fail("check of %s: exit code %d, want %d:\n%s", b.file, code, want, strings.Join(out, "\n"))
		}
		if b.verb == "daemon" {
			s.start("sentryd start -c ./" + b.file).expect("Sentry started …")
			eventually(s.t, "everything is started", func() error {
				if _, out := s.shell("sentryd status -c ./" + b.file); len(out) < 2 || strings.Contains(strings.Join(out, "\n"), "starting") {
					return errors.New(strings.Join(out, "\n"))
				}
				return nil
			})
		}
		return
	}
	list, err := steps(b.body)
	if err != nil {
		fail("%v", err)
	}
	for _, step := range list {
		command := strings.ReplaceAll(step.command, defaultListen, s.listen)
		if b.verb == "daemon" {
			s.start(command).expect(step.want...)
			continue
		}
		code, got := s.shell(command)
		if code != step.code || !matches(step.want, got) {
			fail("$ %s\ngot exit code %d and\n%s\nwant exit code %d and\n%s",
				step.command, code, strings.Join(got, "\n"), step.code, strings.Join(step.want, "\n"))
		}
	}
}

// write puts a configuration into the session's directory, with the session's
// address in the place of the default one.
func (s *session) write(name, text string, complete bool) {
	s.t.Helper()
	if complete && !strings.Contains(text, "\nhttp:") && !strings.HasPrefix(text, "http:") {
		text += "http: {listen: " + defaultListen + "}\n"
	}
	text = strings.ReplaceAll(text, defaultListen, s.listen)
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// shell runs a command and returns its exit code and what it printed, its
// standard error included, as a terminal shows it.
func (s *session) shell(command string) (int, []string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Slow(time.Minute))
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir, cmd.Env = s.dir, s.env
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("%s: %v", command, err)
	}
	places := strings.NewReplacer(s.run, "/run/sentryd", s.dir, "/home/you", s.listen, defaultListen)
	text := strings.TrimRight(places.Replace(string(out)), "\n")
	if text == "" {
		return cmd.ProcessState.ExitCode(), nil
	}
	return cmd.ProcessState.ExitCode(), strings.Split(text, "\n")
}

// start starts a daemon that runs until the test ends, and then has to end
// well.
func (s *session) start(command string) *transcript {
	s.t.Helper()
	cmd := exec.Command("sh", "-c", "exec "+command)
	cmd.Dir, cmd.Env = s.dir, s.env
	out := newTranscript(s.t, s.run)
	cmd.Stdout, cmd.Stderr = out, out
	// The FIFOs keep the output open in a child that outlives a broken daemon.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- cmd.Wait()
		out.close()
	}()
	s.t.Cleanup(func() {
		for _, signal := range []os.Signal{os.Interrupt, os.Interrupt, os.Kill} {
			if err := cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
				s.t.Errorf("signal the daemon: %v", err)
			}
			select {
			case err := <-done:
				if err != nil {
					s.t.Errorf("%s: %v\n%s", command, err, out)
				}
				return
			case <-time.After(testenv.Slow(20 * time.Second)):
				s.t.Errorf("%s: still there 20 s after %v\n%s", command, signal, out)
			}
		}
	})
	return out
}

// docsBinary returns the sentryd to test: SENTRYD_BIN, or one built now.
func docsBinary(t *testing.T) string {
	t.Helper()
	if bin := os.Getenv("SENTRYD_BIN"); bin != "" {
		return bin
	}
	bin := filepath.Join(t.TempDir(), "sentryd")
	buildSentryd(t, bin, "")
	return bin
}

// buildSentryd builds sentryd as make does, with that for the linker.
func buildSentryd(t *testing.T, bin, ldflags string) {
	t.Helper()
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w "+ldflags, "-o", bin, "../cmd/sentryd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build sentryd: %v\n%s", err, out)
	}
}

// freeAddress returns a loopback address that the kernel just had free.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
