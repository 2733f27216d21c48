package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// playCheck is a good binary: it reads the state and says that it can.
func playCheck() error {
	if b, err := io.ReadAll(os.Stdin); err != nil || len(b) > 0 {
		return fmt.Errorf("standard input: %q, %v", b, err)
	}
	for _, name := range []string{Environ, "NOTIFY_SOCKET"} {
		if v, ok := os.LookupEnv(name); ok {
			return fmt.Errorf("%s=%s", name, v)
		}
	}
	if _, err := ReadState(PreflightFD); err != nil {
		return err
	}
	fmt.Println(PreflightOK)
	return nil
}

func TestPreflight(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(roleEnv, "check")
	t.Setenv("NOTIFY_SOCKET", "/nowhere")
	good, err := Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	if err := Preflight(t.Context(), self, nil, good); err != nil {
		t.Error(err)
	}
	err = Preflight(t.Context(), self, nil, good[:len(good)-1])
	if err == nil || !strings.Contains(err.Error(), "exit code 1: check: ") || !strings.Contains(err.Error(), ErrTruncated.Error()) {
		t.Errorf("a truncated state: %v", err)
	}
}

func TestPreflightOfBrokenBinaries(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	script := func(name, body string) string { return write(name, []byte("#!/bin/sh\n"+body), 0o700) }
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ path, want string }{
		{filepath.Join(dir, "missing"), "no such file or directory"},
		{write("noexec", image[:4096], 0o600), "permission denied"},
		{write("empty", nil, 0o700), "exec format error"},
		{write("head", image[:40], 0o700), ""}, // execve or the loader's choice
		{write("half", image[:len(image)/2], 0o700), ""},
		{dir, "permission denied"},
		{script("abort", "kill -SEGV $$"), "ended by SIGSEGV"},
		{script("says", "echo; printf 'panic: \\033[31mred\\nsecond line' >&2; exit 2"), "exit code 2: panic:  [31mred"},
		{script("loud", "head -c 1000000 /dev/zero | tr '\\0' x; exit 1"), "exit code 1: xxx"},
		{script("true", "exit 0"), "is it sentryd?"},
		{script("almost", "echo not "+PreflightOK), "is it sentryd?"},
	} {
		err := Preflight(t.Context(), tc.path, nil, []byte("state"))
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "preflight "+tc.path+": ") {
			t.Errorf("%s: %v, want %q", tc.path, err, tc.want)
			continue
		}
		if strings.ContainsAny(err.Error(), "\n\033") || len(err.Error()) > 600 {
			t.Errorf("%s: not one clear line: %q", tc.path, err)
		}
	}
}

func TestPreflightOfABinaryThatHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hangs")
	// A grandchild holds the output open beyond the binary's own end.
	if err := os.WriteFile(path, []byte("#!/bin/sh\nsleep 1000 & sleep 1000"), 0o700); err != nil {
		t.Fatal(err)
	}
	why := errors.New("no answer in time")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, why)
	defer cancel()
	start := time.Now()
	if err := Preflight(ctx, path, nil, nil); !errors.Is(err, why) {
		t.Error(err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
}
