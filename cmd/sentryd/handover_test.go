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
