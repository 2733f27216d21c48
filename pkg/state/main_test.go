package state

import (
	"fmt"
	"os"
	"testing"
)

// roleEnv makes this test binary play a part in a test of its own: a process
// that re-execs itself, that holds a lock, or that a preflight tries.
const (
	roleEnv = "SENTRYD_STATE_TEST_ROLE"
	dirEnv  = "SENTRYD_STATE_TEST_DIR" // a directory of the test's
)

func TestMain(m *testing.M) {
	roles := map[string]func() error{
		"reexec":     playReexec,
		"failedexec": playFailedExec,
		"lock":       playLock,
		"check":      playCheck,
		"journal":    playJournal,
		"noroom":     playNoRoom,
	}
	role, ok := os.LookupEnv(roleEnv)
	if !ok {
		os.Exit(m.Run())
	}
	play := roles[role]
	if play == nil {
		play = func() error { return fmt.Errorf("no such role: %q", role) }
	}
	if err := play(); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}
