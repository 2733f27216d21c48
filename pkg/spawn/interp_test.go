package spawn

import (
	"bytes"
	"os"
	"runtime"
	"strings"
	"testing"
)

func TestInterpreter(t *testing.T) {
	for want, head := range map[string][]string{
		"/bin/sh": {"#!/bin/sh\necho", "#!/bin/sh", "#! /bin/sh\n", "#!\t /bin/sh -e\n", "#!/bin/sh\x00\n"},
		"":        {"", "#", "#!", "#!\n/bin/sh", "#!   \n", "\x7fELF", "echo", strings.Repeat("\x7fELF\x02\x01", 20)},
		"python3": {"#!python3\n"},
	} {
		for _, h := range head {
			if got := interpreter(strings.NewReader(h), []byte(h)); got != want {
				t.Errorf("%q: %q, want %q", h, got, want)
			}
		}
	}
	if b := staticELF(runtime.GOARCH, exitCode("amd64")); interpreter(bytes.NewReader(b), b) != "" {
		t.Error("a static program has an interpreter")
	}
	b, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	if got := interpreter(bytes.NewReader(b), b[:256]); !strings.HasPrefix(got, "/") || !strings.Contains(got, "ld") {
		t.Errorf("interpreter of /bin/sh: %q", got)
	}
}

func FuzzInterpreter(f *testing.F) {
	f.Add([]byte("#!/usr/bin/env -S python3\n"))
	f.Add(staticELF("amd64", exitCode("amd64")))
	if b, err := os.ReadFile("/bin/true"); err == nil {
		f.Add(b[:min(len(b), 4096)])
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		got := interpreter(bytes.NewReader(file), file[:min(len(file), 256)])
		if strings.ContainsAny(got, "\x00") {
			t.Errorf("%q", got)
		}
	})
}
