package supervisor

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/sockets"
	"github.com/sentryd/sentryd/pkg/view"
)

// slowSockets has those below /hang/ opened when the test says so.
type slowSockets struct {
	*sockets.Set
	waiting []func(fds []int, opened bool, err error)
	dropped []string
}

func (s *slowSockets) Open(list []sockets.Want, then func(fds []int, opened bool, err error)) {
	if strings.HasPrefix(list[0].Spec.Address, "/hang/") {
		s.waiting = append(s.waiting, then)
		return
	}
	s.Set.Open(list, then)
}

func (s *slowSockets) Drop(spec *sockets.Spec, _ int) { s.dropped = append(s.dropped, spec.Address) }

// answer is the answer to the first request.
func (s *slowSockets) answer(b *bed, err error) {
	b.t.Helper()
	failure := b.s.ask(b.t.Context(), func() {
		then := s.waiting[0]
		s.waiting = s.waiting[1:]
		var fds []int
		if err == nil {
			fds = []int{7}
		}
		then(fds, false, err)
		b.s.decideLocal()
		b.s.act()
	})
	if failure != nil {
		b.t.Fatal(failure)
	}
	synctest.Wait()
}

const hungSocket = "{name: s, listen: 'unix:/hang/s'}"

// inSlowBubble is inBubble with slowSockets.
func inSlowBubble(t *testing.T, yaml string, test func(t *testing.T, b *bed, slow *slowSockets)) {
	t.Helper()
	inBubble(t, "entries: {}", func(t *testing.T, b *bed) {
		slow := &slowSockets{Set: sockets.NewSet()}
		b.s.Shutdown(t.Context(), false)
		<-b.done
		b.write(yaml)
		o := b.options(b.path)
		o.Sockets = slow
		b.s = New(o)
		b.run()
		test(t, b, slow)
		for len(slow.waiting) > 0 {
			slow.answer(b, errors.New("the end of the test"))
		}
	})
}

// TestStartWaitsForItsSockets, and nothing else does.
func TestStartWaitsForItsSockets(t *testing.T) {
	yaml := "entries: {a: {command: /bin/a, sockets: [" + hungSocket + "]}, b: {command: /bin/b}}"
	inSlowBubble(t, yaml, func(t *testing.T, b *bed, slow *slowSockets) {
		if p := b.slot("a", 0); p.State != view.Starting || len(b.byPath("/bin/a")) != 0 {
			t.Errorf("a: %+v", p)
		}
		if _, err := b.s.Scale(t.Context(), "b", 3); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := len(b.byPath("/bin/b")); n != 3 {
			t.Errorf("%d processes of b", n)
		}
		slow.answer(b, &sockets.Error{Op: "bind", Address: "unix:/hang/s", Err: unix.ETIMEDOUT})
		if p := b.slot("a", 0); p.State != view.Backoff || p.LastExit.Reason != "start_failed" || p.LastExit.Error != "bind unix:/hang/s: connection timed out" {
			t.Errorf("a: %+v, %+v", p, p.LastExit)
		}
		b.s.Start(t.Context(), "a", -1)
		synctest.Wait()
		slow.answer(b, nil)
		if p := b.byPath("/bin/a"); len(p) != 1 || fmt.Sprint(p[0].spec.Files, p[0].spec.ListenNames) != "[7] [s]" {
			t.Errorf("started: %+v", p)
		}
	})
}

// TestStoppedBeforeItsSockets: whatever the answer is, what is not wanted any more is
// not there in the end.
func TestStoppedBeforeItsSockets(t *testing.T) {
	for name, answer := range map[string]error{"open": nil, "failed": unix.ETIMEDOUT} {
		t.Run(name, func(t *testing.T) {
			inSlowBubble(t, "entries: {a: {command: /bin/a, sockets: ["+hungSocket+"]}}", func(t *testing.T, b *bed, slow *slowSockets) {
				b.s.Stop(t.Context(), "a", -1)
				synctest.Wait()
				slow.answer(b, answer)
				if p := b.slot("a", 0); p.State != view.Stopped || len(b.byPath("/bin/a")) != 0 {
					t.Errorf("%+v", p)
				}
			})
		})
	}
}

// TestSocketsOfAFormerAttempt: what was asked for before a re-exec that failed starts
// nothing beside what was asked for after it.
func TestSocketsOfAFormerAttempt(t *testing.T) {
	inSlowBubble(t, "entries: {a: {command: /bin/a, sockets: ["+hungSocket+"]}}", func(t *testing.T, b *bed, slow *slowSockets) {
		b.failReexec()
		if len(slow.waiting) != 2 {
			t.Fatalf("%d requests", len(slow.waiting))
		}
		slow.answer(b, nil)
		if n := len(b.byPath("/bin/a")); n != 0 {
			t.Errorf("the former attempt started %d processes", n)
		}
		slow.answer(b, nil)
		if n := len(b.byPath("/bin/a")); n != 1 {
			t.Errorf("%d processes", n)
		}
	})
}

// TestReloadOntoAHungSocket is refused in time, and keeps nobody waiting until then.
func TestReloadOntoAHungSocket(t *testing.T) {
	inSlowBubble(t, "entries: {b: {command: /bin/b}}", func(t *testing.T, b *bed, slow *slowSockets) {
		b.write("entries:\n  b: {command: /bin/b}\n  a: {command: /bin/a, sockets: [" + hungSocket + "]}\n")
		refused := make(chan error, 1)
		go func() {
			_, err := b.s.Reload(t.Context())
			refused <- err
		}()
		synctest.Wait()
		if _, err := b.s.Scale(t.Context(), "b", 2); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := len(b.byPath("/bin/b")); n != 2 {
			t.Errorf("%d processes of b", n)
		}
		slow.answer(b, &sockets.Error{Op: "bind", Address: "unix:/hang/s", Err: unix.ETIMEDOUT})
		want := b.path + ":4: entries.a.sockets: s: bind unix:/hang/s: connection timed out"
		if err := <-refused; err == nil || err.Error() != want {
			t.Errorf("refused with %v, want %s", err, want)
		}
		// What the file system does later must not stay.
		if len(slow.dropped) != 1 {
			t.Errorf("dropped: %q", slow.dropped)
		}
	})
}
