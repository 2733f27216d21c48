package supervisor

import (
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/view"
)

// cgroupDir is a fake of the directory of cgroups.
type cgroupDir string

func (d cgroupDir) Dir() string { return string(d) }

func (d cgroupDir) Path(name string) string { return string(d) + "/" + name }

// TestPlacesGoThroughAReexec: each process is taken over with the cgroup that it
// is in, which need not be that of its slot, and one that has none stays so.
func TestPlacesGoThroughAReexec(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.yaml")
	synctest.Test(t, func(t *testing.T) {
		b := &bed{edge: newEdge(t), path: path}
		b.cgroups = cgroupDir("/cg/own")
		b.write("entries: {a: {command: /bin/a, count: 4}}")
		b.s = New(b.options(path))
		b.run()
		procs := b.byPath("/bin/a")
		want := []string{"/cg/own/a:0", "/cg/own/a:1~2", "/elsewhere/a:2", ""}
		for i, p := range procs {
			if got := p.spec.Place.Cgroup; got != b.cgroups.Path(cgroupName("a", i)) {
				t.Errorf("slot %d is started in %s", i, got)
			}
			if marks := p.spec.Place.Marks; len(marks) != 0 {
				t.Errorf("slot %d: marks %v beside a cgroup", i, marks)
			}
			spec := *p.spec
			spec.Place.Cgroup = want[i]
			p.spec = &spec
		}
		b.reexec()
		var got []string
		for _, c := range b.adopted {
			got = append(got, c.Place.Cgroup)
			env := environOf(procs[len(got)-1].spec)
			if marks := c.Place.Marks; c.Place.Cgroup == "" && !inEnviron(marks, env) {
				t.Errorf("marks %v in %v", marks, env)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("taken over in %q", got)
		}
		b.s.Shutdown(t.Context(), false)
		<-b.done
	})
}

// TestMarksWithoutCgroups: a start that gets no cgroup has what its orphans are known by.
func TestMarksWithoutCgroups(t *testing.T) {
	inBubble(t, "entries: {a: {command: /bin/a}}", func(t *testing.T, b *bed) {
		if p := b.byPath("/bin/a")[0]; p.spec.Place.Cgroup != "" || !inEnviron(p.spec.Place.Marks, environOf(p.spec)) {
			t.Errorf("%+v in %v", p.spec.Place, environOf(p.spec))
		}
	})
}

// environOf is the environment of a child of s.
func environOf(s *spawn.Spec) []string { return append(slices.Clip(s.Env), s.EnvLast) }

// inEnviron reports whether there are marks, and an environment has all of them.
func inEnviron(marks, env []string) bool {
	return len(marks) == 3 && !slices.ContainsFunc(marks, func(m string) bool { return !slices.Contains(env, m) })
}

// TestOutOfMemory: a SIGKILL that the kernel sent for lack of memory is put down
// to that, unless the process was being stopped, and counted in any case.
func TestOutOfMemory(t *testing.T) {
	inBubble(t, "entries: {a: {command: /bin/a, delay: 1h}}", func(t *testing.T, b *bed) {
		p := b.byPath("/bin/a")[0]
		b.mu.Lock()
		delete(b.procs, p.token)
		b.emit(spawn.Event{Kind: spawn.Exited, Token: p.token, PID: p.pid, Status: spawn.Status{Known: true, Signal: 9}, OOMKills: 2, TreeEmpty: true})
		b.mu.Unlock()
		synctest.Wait()
		if x := b.slot("a", 0).LastExit; x == nil || !x.OOM || x.Initiator != "oom" {
			t.Errorf("%+v", x)
		}
		if n := b.s.State().Entry("a").OOMKills; n != 2 {
			t.Errorf("%d counted", n)
		}
		b.reexec()
		if n := b.s.State().Entry("a").OOMKills; n != 2 || b.slot("a", 0).State != view.Backoff {
			t.Errorf("%d counted after a re-exec", n)
		}
	})
}

// TestFIFOIsKnownByItsID: each start says which FIFO stands at the path of its output.
func TestFIFOIsKnownByItsID(t *testing.T) {
	inBubble(t, "entries: {a: {command: /bin/a, delay: 0}}", func(t *testing.T, b *bed) {
		for n := uint64(1); n <= 3; n++ {
			p := b.byPath("/bin/a")[0]
			if p.spec.Stdout.ID != n || p.spec.Stderr != p.spec.Stdout {
				t.Errorf("start %d: %+v, %+v", n, p.spec.Stdout, p.spec.Stderr)
			}
			b.end(p, 0)
			synctest.Wait()
		}
	})
}
