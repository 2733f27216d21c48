package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestArchive reads an archive back, as the kernel does.
func TestArchive(t *testing.T) {
	host := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(host, []byte("from the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	archive := tree{}
	archive.file("/a/b/text", "hello", 0o640)
	archive.copy("/a/copy", host, 0o755)
	archive.link("/link", "a/copy")
	archive.dir("/a", 0o700)
	var out strings.Builder
	if err := archive.write(&out); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"a 40700 ", "a/b 40755 ", "a/b/text 100640 hello", "a/copy 100755 from the host", "link 120777 a/copy", "TRAILER!!! 100000 ",
	}, "\n")
	if got := strings.Join(unpack(t, out.String()), "\n"); got != want {
		t.Errorf("the archive has\n%s\nwant\n%s", got, want)
	}
}

// unpack lists the members of an archive: name, mode in octal, content.
func unpack(t *testing.T, archive string) (members []string) {
	t.Helper()
	at := 0
	take := func(n int) string {
		if at+n > len(archive) {
			t.Fatalf("the archive ends at %d, within a part of %d at %d", len(archive), n, at)
		}
		part := archive[at : at+n]
		at += n
		return part
	}
	pad := func() { take(-at & 3) }
	for at < len(archive) {
		if magic := take(6); magic != "070701" {
			t.Fatalf("%q before %d in the place of the magic number", magic, at)
		}
		var field [13]int
		for i := range field {
			n, err := strconv.ParseUint(take(8), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			field[i] = int(n)
		}
		name := strings.TrimSuffix(take(field[11]), "\x00")
		pad()
		members = append(members, fmt.Sprintf("%s %o %s", name, field[1], take(field[6])))
		pad()
	}
	return members
}

func TestArchiveOfWhatIsNotThere(t *testing.T) {
	archive := tree{}
	archive.copy("/a", filepath.Join(t.TempDir(), "none"), 0o755)
	if err := archive.write(new(strings.Builder)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
