package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestThreadThatHangsIsNamed(t *testing.T) {
	tasks := t.TempDir()
	thread := func(tid, stat, wchan string) {
		t.Helper()
		dir := filepath.Join(tasks, tid)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"stat": stat, "wchan": wchan} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	thread("10", "10 (sentryd) S 1 10 10 0 -1", "futex_wait_queue")
	thread("11", "11 (a) D 1) R 1 10 10 0 -1", "0")
	thread("12", "", "")
	if err := hangingThread(tasks); err != nil {
		t.Errorf("none hangs: %v", err)
	}
	thread("13", "13 (sentryd) D 1 10 10 0 -1", "request_wait_answer")
	if err := hangingThread(tasks); err == nil || !strings.Contains(err.Error(), "thread 13 hangs in the kernel (request_wait_answer)") {
		t.Errorf("got %v", err)
	}
	if err := noThreadHangs(); err != nil {
		t.Errorf("in this process: %v", err)
	}
}
