package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// built returns the program that go build makes of pkg. Where there is no
// compiler, in a virtual machine say, whoever runs the tests has made it before
// and put it into SENTRYD_TEST_PROGRAMS by that name.
func built(t *testing.T, name, pkg string, flags ...string) string {
	t.Helper()
	if dir := os.Getenv("SENTRYD_TEST_PROGRAMS"); dir != "" {
		return filepath.Join(dir, name)
	}
	bin := filepath.Join(t.TempDir(), name)
	build := exec.Command("go", append(append([]string{"build", "-o", bin}, flags...), pkg)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return bin
}
