package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestBinaryReplacedAfterThePreflightIsRefused(t *testing.T) {
	dir := t.TempDir()
	d := &daemon{binary: filepath.Join(dir, "sentryd")}
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("sentryd", "one")
	var err error
	if d.tried, err = fingerprintOf(d.binary); err != nil {
		t.Fatal(err)
	}
	if err := d.sameAsTried(); err != nil {
		t.Errorf("not replaced: %v", err)
	}
	if err := os.Rename(write("new", "two"), d.binary); err != nil {
		t.Fatal(err)
	}
	if d.sameAsTried() == nil {
		t.Error("a file of the same size took its place: no error")
	}
	if err := os.Remove(d.binary); err != nil {
		t.Fatal(err)
	}
	if d.sameAsTried() == nil {
		t.Error("removed: no error")
	}
}

func TestRuntimeDirThatTheNextImageWouldRefuse(t *testing.T) {
	for what, spoil := range map[string]func(dir string) error{
		"nothing":                 func(string) error { return nil },
		"removed":                 os.RemoveAll,
		"log directory open":      func(dir string) error { return os.Chmod(filepath.Join(dir, logDir), 0o777) },
		"log directory a file":    func(dir string) error { return replaceByFile(filepath.Join(dir, logDir)) },
		"control socket a file":   func(dir string) error { return replaceByFile(filepath.Join(dir, controlSocket)) },
		"directory above it open": func(dir string) error { return os.Chmod(filepath.Dir(dir), 0o777) },
	} {
		base := filepath.Join(t.TempDir(), "run")
		dir := filepath.Join(base, "a")
		if err := os.MkdirAll(filepath.Join(dir, logDir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		err := checkRuntimeDir(dir)
		if ok := what == "nothing" || what == "removed"; ok != (err == nil) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func replaceByFile(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return os.WriteFile(path, nil, 0o600)
}
