package supervisor

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sentryd/sentryd/pkg/view"
)

// answer says whether starts are answered from now on.
func (b *bed) answer(yes bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slow = !yes
}

// reexec has the daemon go on as its next image.
func (b *bed) reexec() {
	b.t.Helper()
	b.answer(false) // the image that stays behind starts nothing
	if _, err := b.s.Reload(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	synctest.Wait() // the fake's execve fails, with the state kept
	b.s.Shutdown(b.t.Context(), true)
	<-b.done
	b.answer(true)
	next, err := Resume(b.options(b.path), b.saved)
	if err != nil {
		b.t.Fatal(err)
	}
	next.TakeOver(b.handedOver(), func() []string { return nil })
	b.s = next
	b.run()
}

// failReexec has a re-exec fail at execve.
func (b *bed) failReexec() {
	b.t.Helper()
	if _, err := b.s.Reload(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	synctest.Wait()
}

// TestReexecWithoutItsDescriptors: what the next image would not know is not handed to it.
func TestReexecWithoutItsDescriptors(t *testing.T) {
	inBubble(t, "entries: {a: {command: /bin/a, delay: 0}}", func(t *testing.T, b *bed) {
		b.checkErr = errors.New("descriptor 7 is no pidfd")
		b.failReexec()
		if b.saved != nil {
			t.Error("execve was called")
		}
		if last := b.s.State().Daemon.LastReload; last.OK || !strings.Contains(last.Error, "descriptor 7 is no pidfd") {
			t.Errorf("%+v", last)
		}
		b.end(b.byPath("/bin/a")[0], 0)
		synctest.Wait()
		if p := b.slot("a", 0); p.State != view.Running || p.Incarnation != 2 {
			t.Errorf("afterwards: %+v", p)
		}
	})
}

func TestStragglersAreStillKnownAfterOneReexecAndAnotherThatFailed(t *testing.T) {
	inBubble(t, "entries: {a: {command: /bin/a, delay: 0, stop: {timeout: 1h}}}", func(t *testing.T, b *bed) {
		p := b.byPath("/bin/a")[0]
		b.endLeaving(p, 0)
		synctest.Wait()
		b.reexec()
		b.failReexec()
		if q := b.slot("a", 0); q.State != view.Stopping {
			t.Fatalf("with a straggler: %+v", q)
		}
		b.endGroup(p)
		synctest.Wait()
		if q := b.slot("a", 0); q.State != view.Running || q.Incarnation != 2 {
			t.Errorf("once the straggler has ended: %+v", q)
		}
	})
}

func TestOutputIsReadAfterAStartThatWillNotHappen(t *testing.T) {
	for name, again := range map[string]func(*bed){"failed execve": (*bed).failReexec, "re-exec": (*bed).reexec} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, "entries: {a: {command: /bin/a, delay: 0, count: 2}}", func(t *testing.T, b *bed) {
				b.answer(false)
				for _, p := range b.byPath("/bin/a") {
					b.end(p, 1)
				}
				synctest.Wait()
				b.s.Stop(t.Context(), "a", 0)
				b.mu.Lock()
				if len(b.held) != 2 {
					t.Fatalf("held: %v", b.held)
				}
				b.mu.Unlock()
				b.answer(true)
				again(b)
				b.pass(time.Second)
				if p, q := b.slot("a", 0), b.slot("a", 1); p.State != view.Stopped || q.State != view.Running || q.Incarnation != 2 {
					t.Errorf("%+v, %+v", p, q)
				}
				b.mu.Lock()
				defer b.mu.Unlock()
				if len(b.held) != 0 {
					t.Errorf("still held: %v", b.held)
				}
			})
		})
	}
}

func TestFormerPictureUntilTakeOver(t *testing.T) {
	inBubble(t, "entries: {a: {command: /bin/a}, b: {command: /bin/b}}", func(t *testing.T, b *bed) {
		pid := b.slot("a", 0).PID
		b.write("entries: {a: {command: /bin/a, delay: 7s}, c: {command: /bin/c}}")
		if _, err := b.s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.s.Shutdown(t.Context(), true)
		<-b.done
		next, err := Resume(b.options(b.path), b.saved)
		if err != nil {
			t.Fatal(err)
		}
		b.s = next
		st := next.State()
		if !st.Daemon.TakingOver || st.Daemon.Reexecs != 0 || st.Entry("b") == nil || st.Entry("c") != nil {
			t.Errorf("before: %+v", st.Daemon)
		}
		if a := st.Entry("a"); a == nil || a.Running != 1 || a.Processes[0].PID != pid || a.DelayMS != 1000 {
			t.Errorf("before: %+v", a)
		}
		version := st.Version
		next.TakeOver(b.handedOver(), func() []string { return []string{"Something is missing."} })
		b.run()
		st = next.State()
		if st.Daemon.TakingOver || st.Daemon.Reexecs != 1 || st.Version <= version || st.Entry("c") == nil ||
			len(st.Daemon.Missing) == 0 || st.Daemon.Missing[len(st.Daemon.Missing)-1] != "Something is missing." {
			t.Errorf("after: %+v", st.Daemon)
		}
		if a := st.Entry("a"); a.Processes[0].PID != pid || a.DelayMS != 7000 {
			t.Errorf("after: %+v", a)
		}
	})
}
