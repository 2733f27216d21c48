package logs

import (
	"bufio"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// killedKeys are the FIFOs of TestKilled.
var killedKeys = []Key{{Entry: "short"}, {Entry: "short", Slot: 1}, {Entry: "long"}, {Entry: "slow"}}

// TestMain is the process that TestKilled kills, when it is told so.
func TestMain(m *testing.M) {
	dir := os.Getenv("LOGS_TEST_KILLED")
	if dir == "" {
		os.Exit(m.Run())
	}
	o, err := New(Options{Dir: dir, Out: os.Stdout, Err: os.Stderr})
	for i, k := range killedKeys {
		if err == nil {
			err = o.Adopt(k, 1000+i, 1)
		}
	}
	if err == nil {
		err = o.Sweep()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, "ready")
	select {}
}

// TestKilled kills who reads the FIFOs at random moments, often, while others write
// lines that are short, long, and come in parts: each is printed once, whole, in
// order and under its own label.
func TestKilled(t *testing.T) {
	times := 100
	if testing.Short() {
		times = 20
	}
	dir := filepath.Join(t.TempDir(), "log")
	out, err := os.OpenFile(filepath.Join(t.TempDir(), "out"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	stop, wrote := make(chan struct{}), make(chan int, len(killedKeys))
	for i, k := range killedKeys {
		path := filepath.Join(dir, k.file())
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		go func() {
			n := 0
			for ; ; n++ {
				select {
				case <-stop:
					wrote <- n
					return
				default:
				}
				line := killedLine(i, n)
				for len(line) > 0 {
					part := min(len(line), 1+n*7%5000)
					if k.Entry == "slow" {
						part = 1 + n%3
					}
					if _, err := f.WriteString(line[:min(part, len(line))]); err != nil {
						t.Error(err)
						return
					}
					line = line[min(part, len(line)):]
				}
			}
		}()
	}
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	from := rand.New(rand.NewSource(seed))
	total := 0
	for n := range times + 1 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "LOGS_TEST_KILLED="+dir)
		cmd.Stdout = out
		said, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		pidfd := -1
		cmd.SysProcAttr = &syscall.SysProcAttr{PidFD: &pidfd}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(said).ReadString('\n'); line != "ready\n" {
			t.Fatalf("%q, %v", line, err)
		}
		if n == times {
			close(stop)
			for range killedKeys {
				total += <-wrote // to the end of a line
			}
			waitEmpty(t, dir)
		}
		<-time.After(time.Duration(from.Intn(3000)) * time.Microsecond) // a random moment, not a wait for anything
		if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		unix.Close(pidfd)
	}
	// What the last one had in hand comes from the next.
	o, err := New(Options{Dir: dir, Out: out})
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Close(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	checkKilled(t, out, total)
}

// killedLine is the line n of a FIFO of TestKilled.
func killedLine(i, n int) string {
	fill := n * n % 100
	if killedKeys[i].Entry == "long" {
		fill = n * 7919 % maxLine
	}
	return fmt.Sprintf("%d %d %s\n", i, n, strings.Repeat(string(rune('a'+n%26)), fill))
}

// waitEmpty waits until nothing is left in the FIFOs.
func waitEmpty(t *testing.T, dir string) {
	t.Helper()
	for _, k := range killedKeys {
		fd, err := unix.Open(filepath.Join(dir, k.file()), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		tick := time.NewTicker(time.Millisecond)
		for end := time.Now().Add(20 * time.Second); ; <-tick.C {
			if n, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err != nil || n == 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%v is not read", k)
			}
		}
		tick.Stop()
		unix.Close(fd)
	}
}

// checkKilled fails the test unless each line is there once, in order.
func checkKilled(t *testing.T, out *os.File, total int) {
	t.Helper()
	if _, err := out.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	var next [4]int
	in := bufio.NewScanner(out)
	in.Buffer(nil, 1<<20)
	seen := 0
	for ; in.Scan(); seen++ {
		i := -1
		for j, k := range killedKeys {
			if strings.HasPrefix(in.Text()[min(9, len(in.Text())):], fmt.Sprintf("%s.%d ", k.Entry, 1000+j)) {
				i = j
			}
		}
		if i < 0 {
			t.Fatalf("line %d: %.200q", seen, in.Text())
		}
		if want := killedLine(i, next[i]); in.Text()[9+labelWidth:]+"\n" != want {
			t.Fatalf("line %d: %.200q, want %.200q", seen, in.Text(), want)
		}
		next[i]++
	}
	if err := in.Err(); err != nil || seen != total {
		t.Fatalf("%d of %d lines: %v", seen, total, err)
	}
	t.Logf("%v lines", next)
}
