package main

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// unmapProgram lets go of the pages of the program's own file that are mapped. A start
// touches most of it, as each touch maps 64 KiB; what comes after needs a quarter of
// that. A page that is needed again costs a minor fault: it stays in the page cache
// until the kernel wants the room, and is then read from the file as any other. When that cannot be
// done nothing is lost but the memory.
func unmapProgram() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	for _, m := range untouched(bufio.NewScanner(f), exe) {
		// Of a private mapping of a file, that nobody has written to, madvise(2).
		unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
	}
}

// span is a range of addresses.
type span struct{ start, end uintptr }

// untouched returns the mappings of a file in the text of smaps, proc(5), that cannot be
// written to and have not been: a debugger and the kernel's uprobes put breakpoints
// into the program, which are not to be lost.
func untouched(smaps *bufio.Scanner, file string) (found []span) {
	var at span // of file, or nothing
	for smaps.Scan() {
		f := strings.Fields(smaps.Text())
		if len(f) == 0 {
			continue
		}
		if key, ok := strings.CutSuffix(f[0], ":"); ok {
			if key == "Anonymous" && f[1] == "0" && at.end > 0 {
				found = append(found, at)
			}
			continue
		}
		at = span{}
		start, end, _ := strings.Cut(f[0], "-")
		a, err1 := strconv.ParseUint(start, 16, 64)
		b, err2 := strconv.ParseUint(end, 16, 64)
		if err1 != nil || err2 != nil || len(f) < 6 || strings.Contains(f[1], "w") || !strings.HasSuffix(smaps.Text(), " "+file) {
			continue
		}
		at = span{uintptr(a), uintptr(b)}
	}
	return found
}
