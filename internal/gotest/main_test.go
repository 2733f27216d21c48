package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sentryd/sentryd/internal/verdict"
)

// TestRun runs go test for real on a module of three tests.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module x\n\ngo 1.26\n")
	write("x_test.go", "package x\n\nimport \"testing\"\n\nfunc TestA(t *testing.T) {}\nfunc TestB(t *testing.T) { t.Skip(\"needs a moon: none\") }\n")
	for _, c := range []struct {
		place verdict.Place
		code  int
	}{{verdict.Anywhere, 0}, {verdict.FullRun, 1}} {
		var out strings.Builder
		code, err := run(dir, []string{"./..."}, c.place, &out, &out)
		if err != nil {
			t.Fatal(err)
		}
		if code != c.code || !strings.Contains(out.String(), "tests: 1 passed, 0 failed, 1 skipped") || !strings.Contains(out.String(), "ok  \tx") {
			t.Errorf("place=%q: exit code %d, want %d:\n%s", c.place, code, c.code, out.String())
		}
	}
	var out strings.Builder
	write("x_test.go", "package x\n\nbroken\n")
	if code, _ := run(dir, []string{"./..."}, verdict.Anywhere, &out, &out); code == 0 || !strings.Contains(out.String(), "x_test.go:3") {
		t.Errorf("a build failure: exit code %d:\n%s", code, out.String())
	}
}
