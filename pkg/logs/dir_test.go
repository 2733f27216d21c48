package logs

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestWrongThings: what is not a FIFO of our own is refused, named, and left
// as it was.
func TestWrongThings(t *testing.T) {
	h := newHarness(t, Options{})
	target := filepath.Join(t.TempDir(), "target")
	if err := unix.Mkfifo(target, 0o600); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]func(path string) error{
		"symbolic link": func(p string) error { return os.Symlink(target, p) },
		"regular file":  func(p string) error { return os.WriteFile(p, []byte("kept"), 0o600) },
		"directory":     func(p string) error { return os.Mkdir(p, 0o700) },
		"socket": func(p string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p, Net: "unix"})
			if err == nil {
				l.SetUnlinkOnClose(false)
				l.Close()
			}
			return err
		},
	}
	for kind, make := range kinds {
		k := Key{Entry: strings.ReplaceAll(kind, " ", "-")}
		if err := make(h.Path(k)); err != nil {
			t.Fatal(err)
		}
		before, err := os.Lstat(h.Path(k))
		if err != nil {
			t.Fatal(err)
		}
		err = h.Add(k)
		if err == nil || !strings.Contains(err.Error(), kind) || !strings.Contains(err.Error(), h.Path(k)) {
			t.Errorf("%s: %v", kind, err)
		}
		h.Remove(k)
		after, err := os.Lstat(h.Path(k))
		if err != nil || !os.SameFile(before, after) || before.Mode() != after.Mode() {
			t.Errorf("%s was changed: %v %v", kind, after, err)
		}
	}
}

// TestOwner: the FIFO is the child's user's. When that changes it is another
// one, and what the user before holds open leads nowhere near the new one's
// lines; what was written into it is not lost.
func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a FIFO of another user")
	}
	h := newHarness(t, Options{})
	k := Key{Entry: "e"}
	owner := func() (uid int) {
		var st unix.Stat_t
		if err := unix.Stat(h.Path(k), &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode&0o7777 != 0o600 {
			t.Errorf("mode %o", st.Mode)
		}
		return int(st.Uid)
	}
	// What an earlier daemon left is read, whoever's it is.
	if err := unix.Mkfifo(h.Path(k), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(h.Path(k), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	left := h.child(k)
	fmt.Fprintln(left, "left")
	for _, uid := range []int{54321, 0, 54321, 54321} {
		old := h.child(k)
		if _, err := h.AddFor(k, uid); err != nil {
			t.Fatal(err)
		}
		if got := owner(); got != uid {
			t.Errorf("owner %d, want %d", got, uid)
		}
		fmt.Fprintln(h.child(k), "to", uid)
		fmt.Fprintln(old, "old")
	}
	var got []string
	for _, l := range h.lines(9) {
		got = append(got, strings.TrimSpace(l[strings.LastIndex(l, "  "):]))
	}
	slices.Sort(got)
	want := []string{"left", "old", "old", "old", "old", "to 0", "to 54321", "to 54321", "to 54321"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	h.Remove(k)
	h.Flush()
	if _, err := os.Lstat(h.Path(k)); !os.IsNotExist(err) {
		t.Error("not removed:", err)
	}
}

func TestDirectory(t *testing.T) {
	base := t.TempDir()
	open := filepath.Join(base, "open")
	if err := os.Mkdir(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(base, "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{open, link, filepath.Join(base, "no", "parent")} {
		if o, err := New(Options{Dir: dir, Out: os.Stderr}); err == nil {
			t.Errorf("%s accepted", dir)
			o.Close(0)
		}
	}
}

func TestBadKeys(t *testing.T) {
	h := newHarness(t, Options{})
	for _, k := range []Key{
		{}, {Entry: "../e"}, {Entry: "a/b"}, {Entry: ".."}, {Entry: "a:0"}, {Entry: "a\x00"},
		{Entry: "a", Slot: -1}, {Entry: "a", Stream: 9},
	} {
		if err := h.Add(k); err == nil {
			t.Errorf("%+v accepted", k)
		}
	}
}

// TestFIFOsHaveIDs: another FIFO has another id, and the same one has the same.
func TestFIFOsHaveIDs(t *testing.T) {
	h := newHarness(t, Options{})
	seen := make(map[uint64]bool)
	add := func(k Key) uint64 {
		t.Helper()
		id, err := h.AddFor(k, os.Geteuid())
		if err != nil {
			t.Fatal(err)
		}
		if again, err := h.AddFor(k, os.Geteuid()); err != nil || again != id || id == 0 {
			t.Errorf("%d, and again %d (%v)", id, again, err)
		}
		if seen[id] {
			t.Errorf("%d is another FIFO's", id)
		}
		seen[id] = true
		return id
	}
	a, b := Key{Entry: "a"}, Key{Entry: "b"}
	add(a)
	add(b)
	if err := os.Remove(h.Path(a)); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	h.byKey[a].checked = time.Time{} // a second ago
	h.mu.Unlock()
	add(a)
	h.Remove(b)
	add(b)
}

// TestMode: nobody else can read or write the lines, whatever the umask and
// whatever somebody did to the file.
func TestMode(t *testing.T) {
	h := newHarness(t, Options{})
	k := Key{Entry: "e"}
	if err := unix.Mkfifo(h.Path(k), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(h.Path(k), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := h.Add(k); err != nil {
		t.Fatal(err)
	}
	st, err := os.Lstat(h.Path(k))
	if err != nil || st.Mode() != os.ModeNamedPipe|0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
}

// TestDaemonDied: what was written while no daemon read is found by the next,
// and the child gets no error.
func TestDaemonDied(t *testing.T) {
	h := newHarness(t, Options{})
	k := Key{Entry: "e"}
	f := h.add(k)
	if err := h.Close(time.Second); err != nil {
		t.Fatal(err)
	}
	write(t, f, "meanwhile\n")
	next, err := New(Options{Dir: h.dir, Out: h.errs})
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Add(k); err != nil {
		t.Fatal(err)
	}
	next.Label(k, 42, 7)
	next.Remove(k)
	if err := next.Close(time.Second); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(h.errs.Name())
	if !strings.HasSuffix(string(got), "meanwhile\n") {
		t.Errorf("%q", got)
	}
}

// TestFileVanished: when somebody removes the FIFO, Add makes it anew, and a
// child that has the old one goes on being heard.
func TestFileVanished(t *testing.T) {
	h := newHarness(t, Options{})
	k := Key{Entry: "e"}
	old := h.add(k)
	if err := os.Remove(h.Path(k)); err != nil {
		t.Fatal(err)
	}
	h.byKey[k].checked = time.Time{} // as if a second had passed
	f := h.add(k)
	write(t, f, "new\n")
	h.wantTexts("e               new")
	write(t, old, "old\n")
	h.wantTexts("e               old")
	before := openFDs(t)
	h.Remove(k)
	h.Print(Record{Text: "removed"})
	h.wantTexts("removed")
	if n := openFDs(t); n != before-2 {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}

// TestSweep: only FIFOs of slots that nobody reads go.
func TestSweep(t *testing.T) {
	h := newHarness(t, Options{})
	k := Key{Entry: "kept"}
	h.add(k)
	other := filepath.Join(h.dir, "other")
	file := h.Path(Key{Entry: "file"})
	for _, p := range []string{h.Path(Key{Entry: "left", Slot: 9999, Stream: Stderr}), other} {
		if err := unix.Mkfifo(p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.Sweep(); err != nil {
		t.Fatal(err)
	}
	got, _ := filepath.Glob(h.dir + "/*")
	if d := cmp.Diff([]string{filepath.Join(h.dir, backlogFile), file, h.Path(k), other}, got); d != "" {
		t.Error(d)
	}
}
