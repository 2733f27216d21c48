package state

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func newJournal(t testing.TB, dir string) *Journal {
	t.Helper()
	j, err := NewJournal(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return j
}

// counted is a batch with n in every record, so that a mixture would show.
func counted(n uint64) *Batch {
	b := new(Batch)
	for i := range 3 {
		b.Entry(&Entry{Name: "web", Count: int(n)})
		b.Slot("web", &Slot{Slot: i, Incarnation: n, State: "running"})
		b.Process(&Process{Entry: "web", Slot: i, Incarnation: n, PID: int(n) + 1, Inode: n})
	}
	b.Marks(Marks{Version: n, Seq: n})
	return b
}

// readCounted returns the n of the journal in dir.
func readCounted(dir string) (n uint64, err error) {
	r, err := ReadJournal(dir)
	if err != nil {
		return 0, err
	}
	if r == nil || r.Daemon == nil {
		return 0, errors.New("no state")
	}
	n = r.Marks.Version
	es := r.Daemon.Machine.Entries
	if len(es) != 1 || es[0].Count != int(n) || len(es[0].Slots) != 3 || len(r.Processes) != 3 || r.Marks.Seq != n {
		return 0, fmt.Errorf("a mixture: %+v", r)
	}
	for i := range 3 {
		if es[0].Slots[i].Incarnation != n || r.Processes[i].Inode != n || r.Processes[i].Incarnation != n {
			return 0, fmt.Errorf("a mixture: %+v", r)
		}
	}
	return n, nil
}

func wantCounted(t *testing.T, dir string, want uint64) {
	t.Helper()
	if n, err := readCounted(dir); err != nil || n != want {
		t.Fatalf("the journal says %d (%v), want %d", n, err, want)
	}
}

func TestJournalLife(t *testing.T) {
	dir := t.TempDir()
	if r, err := ReadJournal(dir); r != nil || err != nil {
		t.Fatalf("no journal: %v, %v", r, err)
	}
	j := newJournal(t, dir)
	if !j.Stale() || !j.Due() {
		t.Error("a new journal has nothing, and is not stale")
	}
	if err := j.Append(counted(1)); !errors.Is(err, ErrStale) {
		t.Errorf("append before the first compaction: %v", err)
	}
	if err := j.Compact(new(Batch)); err == nil {
		t.Error("compacted to nothing")
	}
	if err := j.Compact(counted(1)); err != nil {
		t.Fatal(err)
	}
	wantCounted(t, dir, 1)
	if err := j.Append(new(Batch)); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(counted(2)); err != nil {
		t.Fatal(err)
	}
	wantCounted(t, dir, 2)
	st, err := os.Lstat(filepath.Join(dir, JournalName))
	if err != nil || st.Mode() != 0o600 || st.Size() != j.Size() {
		t.Errorf("%v, %v, size %d", st, err, j.Size())
	}
	r, err := ReadJournal(dir)
	if err != nil || r.Head.PID != os.Getpid() || r.Head.Version != "test" || !r.Report.Complete() {
		t.Errorf("%+v, %v", r, err)
	}
	if err := j.Remove(); err != nil {
		t.Fatal(err)
	}
	if r, err := ReadJournal(dir); r != nil || err != nil {
		t.Errorf("after Remove: %v, %v", r, err)
	}
}

func TestJournalIsBounded(t *testing.T) {
	dir := t.TempDir()
	j := newJournal(t, dir)
	compactions := 0
	for n := range uint64(40_000) {
		if j.Due() {
			compactions++
			if err := j.Compact(counted(n)); err != nil {
				t.Fatal(err)
			}
		} else if err := j.Append(counted(n)); err != nil {
			t.Fatal(err)
		}
		if j.Size() > minCompact+1000 {
			t.Fatalf("%d bytes", j.Size())
		}
	}
	if compactions < 3 {
		t.Errorf("%d compactions", compactions)
	}
	wantCounted(t, dir, 40_000-1)
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestJournalFull meets the bound of a reader.
func TestJournalFull(t *testing.T) {
	dir := t.TempDir()
	j := newJournal(t, dir)
	if err := j.Compact(counted(1)); err != nil {
		t.Fatal(err)
	}
	j.max = j.size + 10
	if err := j.Append(counted(2)); !errors.Is(err, ErrFull) || !j.Stale() {
		t.Errorf("append: %v, stale %v", err, j.Stale())
	}
	if err := j.Append(&Batch{}); err != nil {
		t.Errorf("append of nothing: %v", err)
	}
	wantCounted(t, dir, 1)
	if err := j.Compact(counted(3)); err != nil || j.Stale() {
		t.Fatal(err)
	}
	wantCounted(t, dir, 3)
	j.max = 10
	if err := j.Compact(counted(4)); !errors.Is(err, ErrFull) {
		t.Errorf("compact: %v", err)
	}
	wantCounted(t, dir, 3)
}

// TestCompactionThatCannot leaves what was there, and goes on with it.
func TestCompactionThatCannot(t *testing.T) {
	dir := t.TempDir()
	j := newJournal(t, dir)
	if err := j.Compact(counted(1)); err != nil {
		t.Fatal(err)
	}
	block := filepath.Join(dir, journalTemp)
	if err := os.Mkdir(block, 0o700); err != nil { // unlink(2) takes no directory
		t.Fatal(err)
	}
	if err := j.Compact(counted(2)); err == nil {
		t.Fatal("compacted where it cannot")
	}
	wantCounted(t, dir, 1)
	if err := j.Append(counted(3)); err != nil {
		t.Fatal(err)
	}
	wantCounted(t, dir, 3)
	if err := os.Remove(block); err != nil {
		t.Fatal(err)
	}
	if err := j.Compact(counted(4)); err != nil {
		t.Fatal(err)
	}
	wantCounted(t, dir, 4)
}

// TestCrashDuringCompaction has what a crash between any two of its steps leaves.
func TestCrashDuringCompaction(t *testing.T) {
	next := append(journalBytes(t, testBoot), counted(9).seal()...)
	for n := range len(next) + 1 {
		dir := t.TempDir()
		j := newJournal(t, dir)
		if err := j.Compact(counted(1)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, journalTemp), next[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		wantCounted(t, dir, 1)
		after := newJournal(t, dir)
		if err := after.Compact(counted(2)); err != nil {
			t.Fatal(err)
		}
		wantCounted(t, dir, 2)
		j.Close()
		after.Close()
	}
}

// TestJournalThatIsNone refuses what somebody else put there.
func TestJournalThatIsNone(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"symbolic link": func(path string) error { return os.Symlink("/etc/passwd", path) },
		"FIFO":          func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		"writable": func(path string) error {
			return errors.Join(os.WriteFile(path, journalBytes(t, testBoot, counted(1)), 0o600), os.Chmod(path, 0o622))
		},
	} {
		dir := t.TempDir()
		if err := put(filepath.Join(dir, JournalName)); err != nil {
			t.Fatal(err)
		}
		if r, err := ReadJournal(dir); r != nil || err == nil {
			t.Errorf("%s: %v, %v", name, r, err)
		}
		if name == "directory" {
			continue // rename(2) does not replace it, and says so
		}
		// A link in the place of the new file is removed, not followed.
		victim := filepath.Join(dir, "victim")
		if err := os.Symlink(victim, filepath.Join(dir, journalTemp)); err != nil {
			t.Fatal(err)
		}
		if err := newJournal(t, dir).Compact(counted(5)); err != nil {
			t.Fatal(err)
		}
		wantCounted(t, dir, 5)
		if _, err := os.Lstat(victim); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the link was followed: %v", name, err)
		}
	}
}

func journalRole(role, dir string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+role, dirEnv+"="+dir)
	cmd.Stderr = os.Stderr
	return cmd
}

// TestJournalWithoutRoom has the disk take part of a batch, then nothing, and
// then all again.
func TestJournalWithoutRoom(t *testing.T) {
	if err := journalRole("noroom", t.TempDir()).Run(); err != nil {
		t.Error(err)
	}
}

func playNoRoom() error {
	signal.Notify(make(chan os.Signal, 1), unix.SIGXFSZ) // RLIMIT_FSIZE's; else it ends the process
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	room := func(n uint64) error {
		return unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: min(n, old.Max), Max: old.Max})
	}
	dir := os.Getenv(dirEnv)
	for extra := range uint64(len(counted(2).seal())) { // bytes of the batch that fit
		j, err := NewJournal(dir, "test")
		if err != nil {
			return err
		}
		if err := j.Compact(counted(1)); err != nil {
			return err
		}
		size := j.Size()
		if err := room(uint64(size) + extra); err != nil {
			return err
		}
		err = j.Append(counted(2))
		if extra > 0 && !errors.Is(err, io.ErrShortWrite) || extra == 0 && !errors.Is(err, unix.EFBIG) {
			return fmt.Errorf("%d bytes fit: %v", extra, err)
		}
		if n, err := readCounted(dir); err != nil || n != 1 {
			return fmt.Errorf("%d bytes fit: then %d, %v", extra, n, err)
		}
		if st, err := os.Stat(filepath.Join(dir, JournalName)); err != nil || st.Size() != size {
			return fmt.Errorf("%d bytes fit: the torn end was left: %v, %v", extra, st, err)
		}
		if err := room(10); err != nil {
			return err
		}
		if err := j.Compact(counted(3)); err == nil || !j.Stale() {
			return fmt.Errorf("compacted without room: %v", err)
		}
		if n, err := readCounted(dir); err != nil || n != 1 {
			return fmt.Errorf("after a compaction that failed: %d, %v", n, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			return fmt.Errorf("left behind: %v, %v", left, err)
		}
		if err := room(old.Cur); err != nil {
			return err
		}
		if err := j.Append(counted(4)); !errors.Is(err, ErrStale) {
			return fmt.Errorf("append to a stale journal: %v", err)
		}
		if err := errors.Join(j.Compact(counted(5)), j.Append(counted(6))); err != nil {
			return err
		}
		if n, err := readCounted(dir); err != nil || n != 6 {
			return fmt.Errorf("with room again: %d, %v", n, err)
		}
		j.Close()
	}
	return nil
}

// TestJournalOutlivesSIGKILL kills a writer at random moments. What it said was
// written is there, and nothing by halves.
func TestJournalOutlivesSIGKILL(t *testing.T) {
	dir := t.TempDir()
	for round := range 30 {
		cmd := journalRole("journal", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0) // ours, and not waited for
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		var said uint64
		for range 1 + round*40 {
			if _, err := fmt.Fscanln(lines, &said); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(lines)
		if whole := bytes.LastIndexByte(rest, '\n'); whole >= 0 {
			all := strings.Fields(string(rest[:whole]))
			if _, err := fmt.Sscan(all[len(all)-1], &said); err != nil {
				t.Fatal(err)
			}
		}
		_ = cmd.Wait() // killed
		unix.Close(pidfd)
		n, err := readCounted(dir)
		if err != nil || n < said || n > said+1 {
			t.Fatalf("round %d: the journal says %d (%v), the writer had said %d", round, n, err, said)
		}
	}
}

// playJournal writes numbered batches for as long as it lives, and says of each
// that it is written. It compacts often.
func playJournal() error {
	dir := os.Getenv(dirEnv)
	j, err := NewJournal(dir, "test")
	if err != nil {
		return err
	}
	n, err := readCounted(dir)
	if err != nil {
		n = 0 // the first
	}
	for {
		n++
		write := j.Append
		if j.Due() || n%7 == 0 {
			write = j.Compact
		}
		if err := write(counted(n)); err != nil {
			return err
		}
		if _, err := fmt.Println(n); err != nil {
			return err
		}
	}
}
