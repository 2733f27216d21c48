package testenv

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// recorder is a testing.TB that remembers a skip instead of ending the test.
type recorder struct {
	testing.TB
	skipped string
}

func (r *recorder) Helper()                       {}
func (r *recorder) Skipf(format string, a ...any) { r.skipped = fmt.Sprintf(format, a...) }

func TestNeedNamesWhatIsMissing(t *testing.T) {
	r := &recorder{TB: t}
	Need(r, Tool("sh"), Tool("no-such-program-here"))
	if !strings.HasPrefix(r.skipped, "needs no-such-program-here: ") {
		t.Errorf("skipped with %q", r.skipped)
	}
}

func TestNeedIsSilentWhenMet(t *testing.T) {
	r := &recorder{TB: t}
	Need(r, Tool("sh"), User("root"), Kernel(5, 10))
	if r.skipped != "" {
		t.Errorf("skipped with %q", r.skipped)
	}
}

func TestEveryRequirementAnswers(t *testing.T) {
	for _, req := range []Requirement{Root(), NotRoot(), Connector(), Cgroup2(), Long(), Kernel(99, 0), User("no-such-user")} {
		t.Logf("%s: missing=%q", req.name, req.missing())
	}
	if (Root().missing() == "") == (NotRoot().missing() == "") {
		t.Error("root and plain user at once, or neither")
	}
	if os.Geteuid() == 0 && Root().missing() != "" {
		t.Error("root does not count as root")
	}
	if Kernel(99, 0).missing() == "" {
		t.Error("Linux 99.0 counts as there")
	}
}
