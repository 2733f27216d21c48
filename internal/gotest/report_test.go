package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const stream = `{"Action":"run","Package":"p","Test":"TestOK"}
{"Action":"output","Package":"p","Test":"TestOK","Output":"quiet\n"}
{"Action":"pass","Package":"p","Test":"TestOK"}
{"Action":"output","Package":"p","Test":"TestBad","Output":"    a_test.go:3: broken\n"}
{"Action":"fail","Package":"p","Test":"TestBad"}
{"Action":"output","Package":"p","Test":"TestSkip","Output":"    a_test.go:9: needs a moon: none here\n"}
{"Action":"skip","Package":"p","Test":"TestSkip"}
{"Action":"output","Package":"p","Test":"TestPlain","Output":"    a_test.go:9: needs a plain user: the uid is 0\n"}
{"Action":"skip","Package":"p","Test":"TestPlain"}
{"Action":"output","Package":"p","Test":"TestHung","Output":"still waiting\n"}
stray line of a child
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`

func TestReport(t *testing.T) {
	var out strings.Builder
	r := newReport(&out)
	if err := r.read(strings.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	if r.summary(false) != true {
		t.Error("a skip failed a run that is not the full one")
	}
	got := out.String()
	for _, want := range []string{
		"a_test.go:3: broken", "never ended", "still waiting", "stray line of a child", "FAIL\tp\t0.1s",
		"skip  p.TestSkip: needs a moon: none here\n", "(expected: ", "tests: 1 passed, 2 failed, 2 skipped\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "quiet") {
		t.Errorf("shows the output of a test that passed:\n%s", got)
	}
}

func TestFullRunRefusesASkip(t *testing.T) {
	var out strings.Builder
	r := newReport(&out)
	r.skips = []skip{{key{"p", "TestSkip"}, "needs a moon: none here"}}
	if r.summary(true) {
		t.Error("the full run took a skip that nobody expected")
	}
	r.skips = []skip{{key{"p", "TestPlain"}, "needs a plain user: the uid is 0"}}
	if !r.summary(true) {
		t.Error("the full run refused a skip that is in the list")
	}
}

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
		full bool
		code int
	}{{false, 0}, {true, 1}} {
		var out strings.Builder
		code, err := run(dir, []string{"./..."}, c.full, &out, &out)
		if err != nil {
			t.Fatal(err)
		}
		if code != c.code || !strings.Contains(out.String(), "tests: 1 passed, 0 failed, 1 skipped") || !strings.Contains(out.String(), "ok  \tx") {
			t.Errorf("full=%v: exit code %d, want %d:\n%s", c.full, code, c.code, out.String())
		}
	}
	var out strings.Builder
	write("x_test.go", "package x\n\nbroken\n")
	if code, _ := run(dir, []string{"./..."}, false, &out, &out); code == 0 || !strings.Contains(out.String(), "x_test.go:3") {
		t.Errorf("a build failure: exit code %d:\n%s", code, out.String())
	}
}
