package verdict

import (
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
	r := New(&out)
	if err := r.Read(strings.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	if r.Summary(Anywhere) != true {
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
	r := New(&out)
	r.skips = []skip{{key{"p", "TestSkip"}, "needs a moon: none here"}}
	if r.Summary(FullRun) {
		t.Error("the full run took a skip that nobody expected")
	}
	r.skips = []skip{{key{"p", "TestPlain"}, "needs a plain user: the uid is 0"}}
	if !r.Summary(FullRun) {
		t.Error("the full run refused a skip that is in the list")
	}
}
