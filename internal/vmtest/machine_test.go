package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sentryd/sentryd/internal/verdict"
)

// emulator stands in for qemu: the first machine ends one package, with a test of
// the second running; the next one ends what is left. What the first one's kernel
// says at its end comes from the file "last".
const emulator = `#!/bin/sh
for arg; do
	case $arg in file:*) console=${arg#file:};; esac
done
cd "$(dirname "$console")"
ended() {
	echo "{\"Action\":\"run\",\"Package\":\"$1\",\"Test\":\"TestX\"}"
	echo "{\"Action\":\"pass\",\"Package\":\"$1\",\"Test\":\"TestX\"}"
	echo "{\"Action\":\"guest-ended\",\"Package\":\"$1\",\"Output\":\"pass\"}"
}
if [ -e booted ]; then
	echo "[    0.1] ready" >"$console"
	ended b >&3
	echo '{"Action":"guest-done"}' >&3
else
	touch booted
	cp last "$console"
	ended a >&3
	echo '{"Action":"output","Package":"b","Test":"TestX","Output":"x"}' >&3
fi
`

// TestEmulatorBreaks: what had not ended when the emulator broke is run again, and
// counts once; a kernel that panics for another reason has failed.
func TestEmulatorBreaks(t *testing.T) {
	for last, want := range map[string]struct {
		ok             bool
		passed, failed int
		runs           string
	}{
		"[    9.0] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\n":                   {true, 2, 0, "a,b b"},
		"[    9.0] BUG: kernel NULL pointer dereference, address: 0000000000\n": {false, 1, 1, "a,b"},
		"[    9.0] int3: 0000 [#1] PREEMPT SMP NOPTI\n":                         {true, 2, 0, "a,b b"},
		"a test says Oops: int3: too\n":                                         {false, 1, 1, "a,b"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte(emulator), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "last"), []byte(last), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		var out strings.Builder
		var runs []string
		r := result{release: "6.1", report: verdict.New(&out), ok: true}
		m := machine{console: filepath.Join(dir, "console"), events: filepath.Join(dir, "events")}
		err := r.play(t.Context(), m, time.Minute, []suite{{pkg: "a"}, {pkg: "b"}}, &out, func(list []suite) error {
			var names []string
			for _, s := range list {
				names = append(names, s.pkg)
			}
			runs = append(runs, strings.Join(names, ","))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		r.report.Summary(verdict.Anywhere)
		if r.ok != want.ok || r.report.Passed != want.passed || r.report.Failed != want.failed || !slices.Equal(runs, strings.Fields(want.runs)) {
			t.Errorf("%q: ok %v, %d passed, %d failed, runs %q, want %+v\n%s", last, r.ok, r.report.Passed, r.report.Failed, runs, want, &out)
		}
		if !strings.Contains(out.String(), strings.TrimSpace(last)) {
			t.Errorf("%q is not shown:\n%s", last, &out)
		}
	}
}
