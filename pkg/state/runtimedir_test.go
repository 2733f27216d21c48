package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sentryd/sentryd/internal/testenv"
)

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	fi, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Mode()
}

func TestRuntimeDir(t *testing.T) {
	base := filepath.Join(t.TempDir(), "deep", "run")
	for range 2 { // made, then taken
		got, err := RuntimeDir(base, "web")
		if err != nil || got != filepath.Join(base, "web") {
			t.Fatalf("%q, %v", got, err)
		}
		if m := mode(t, got); m != os.ModeDir|0o711 {
			t.Errorf("mode %v", m)
		}
		if err := os.Chmod(got, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if m := mode(t, base); m != os.ModeDir|0o755 {
		t.Errorf("mode of base %v", m)
	}
	// A symbolic link above base/NAME is the administrator's.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(base, link); err != nil {
		t.Fatal(err)
	}
	if _, err := RuntimeDir(link, "web"); err != nil {
		t.Error(err)
	}
}

func TestRuntimeDirRefuses(t *testing.T) {
	base := t.TempDir()
	if err := os.Mkdir(filepath.Join(base, "target"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("target", filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"link": "symbolic link", "file": "not a directory",
		"": "name", ".": "name", "..": "name", "a/b": "name",
	} {
		if _, err := RuntimeDir(base, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
	if m := mode(t, filepath.Join(base, "target")); m != os.ModeDir|0o700 {
		t.Errorf("the link's target was changed: %v", m)
	}
	open := filepath.Join(base, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := RuntimeDir(open, "web"); err == nil || !strings.Contains(err.Error(), "writable by others") {
		t.Errorf("a base that others write to: %v", err)
	}
	if err := os.Chmod(open, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if _, err := RuntimeDir(open, "web"); err != nil {
		t.Errorf("a sticky base: %v", err)
	}
}

func TestRuntimeDirOfAnother(t *testing.T) {
	testenv.Need(t, testenv.Root())
	base := t.TempDir()
	const nobody = 65534
	if err := os.Mkdir(filepath.Join(base, "web"), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(base, "web"), nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if _, err := RuntimeDir(base, "web"); err == nil || !strings.Contains(err.Error(), "belongs to uid 65534") {
		t.Errorf("another's directory: %v", err)
	}
	if err := os.Chown(base, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if _, err := RuntimeDir(base, "other"); err == nil || !strings.Contains(err.Error(), "belongs to uid 65534") {
		t.Errorf("another's base: %v", err)
	}
}
