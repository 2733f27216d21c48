package main

import (
	"bytes"
	_ "embed" // of the storm's source
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed c/storm.c
var stormSource []byte

// bench is where the built programs are.
type bench struct {
	dir      string
	sentryd  string
	forkstat string
	missing  map[string]string // by program: why it is not there
}

func (b *bench) program(name string) string { return filepath.Join(b.dir, name) }

func build(dir string, o options) (*bench, error) {
	b := &bench{dir: dir, sentryd: o.sentryd, missing: make(map[string]string)}
	here, err := output("go", "list", "-f", "{{.Dir}}", "github.com/sentryd/sentryd/bench")
	if err != nil {
		return nil, err
	}
	source := b.program("storm.c")
	if err := os.WriteFile(source, stormSource, 0o600); err != nil {
		return nil, err
	}
	for program, source := range map[string]string{"storm": source, "listen": filepath.Join(here, "c", "listen.c")} {
		if _, err := output("cc", "-O2", "-Wall", "-o", b.program(program), source); err != nil {
			return nil, err
		}
	}
	if b.sentryd == "" {
		b.sentryd = b.program("sentryd")
		if _, err := output("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.sentryd, "github.com/sentryd/sentryd/cmd/sentryd"); err != nil {
			return nil, err
		}
	}
	// The module of its own may not be at hand where there is no network.
	if _, err := output("go", "build", "-C", filepath.Join(here, "connector", "vishvananda"), "-o", b.program("vishvananda"), "."); err != nil {
		b.missing["vishvananda"] = "cannot be built here: " + firstLine(err.Error())
	}
	if b.forkstat, err = exec.LookPath("forkstat"); err != nil {
		b.missing["forkstat"] = "not installed"
	}
	return b, nil
}

// output runs a program and returns what it printed.
func output(argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
