package supervisor

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sentryd/sentryd/pkg/view"
)

// takenAddress is a loopback address that somebody listens on until free.
func takenAddress(t *testing.T) (address string, free func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String(), func() { ln.Close() }
}

// answers reports whether somebody listens at an address or a path.
func answers(address string) bool {
	network := "tcp"
	if filepath.IsAbs(address) {
		network = "unix"
	}
	c, err := net.Dial(network, address)
	if err == nil {
		c.Close()
	}
	return err == nil
}

func withSockets(list ...string) string {
	return "entries: {a: {command: /bin/a, delay: 0, count: 2, sockets: [" + strings.Join(list, ", ") + "]}}"
}

func TestSocketsArePassedAndKept(t *testing.T) {
	tcp, free := takenAddress(t)
	free()
	path := filepath.Join(t.TempDir(), "s")
	yaml := withSockets(fmt.Sprintf("{name: web, listen: 'tcp://%s'}", tcp), fmt.Sprintf("{name: app, listen: 'unix:%s'}", path))
	inBubble(t, yaml, func(t *testing.T, b *bed) {
		p := b.byPath("/bin/a")
		if len(p) != 2 || len(p[0].spec.Files) != 2 || strings.Join(p[0].spec.ListenNames, ":") != "web:app" {
			t.Fatalf("passed: %+v", p[0].spec)
		}
		if p[0].spec.Files[0] != p[1].spec.Files[0] {
			t.Error("two slots have two sockets")
		}
		first := p[0].spec.Files[0]
		b.end(p[0], 1)
		synctest.Wait()
		b.s.Stop(t.Context(), "a", -1)
		synctest.Wait()
		if !answers(tcp) {
			t.Error("not kept over a stop")
		}
		b.s.Start(t.Context(), "a", -1)
		synctest.Wait()
		b.failReexec()
		b.reexec()
		if !answers(tcp) {
			t.Error("not kept over a re-exec")
		}
		b.s.Restart(t.Context(), "a", -1, 0)
		synctest.Wait()
		if p := b.byPath("/bin/a"); len(p) != 2 || p[1].spec.Files[0] != first {
			t.Error("after a re-exec it is another socket")
		}
		b.write("entries: {a: {command: /bin/a, sockets: [{name: app, listen: 'unix:" + path + "'}]}}")
		b.reexec()
		if answers(tcp) {
			t.Error("what the configuration does not have any more is open")
		}
		if !answers(path) {
			t.Error("the other one went with it")
		}
	})
	if answers(path) || answers(tcp) {
		t.Error("open after the end of the daemon")
	}
}

func TestAddressThatIsTakenIsAStartError(t *testing.T) {
	address, free := takenAddress(t)
	inBubble(t, withSockets(fmt.Sprintf("{name: web, listen: 'tcp://%s'}", address)), func(t *testing.T, b *bed) {
		want := fmt.Sprintf("bind tcp://%s: address already in use", address)
		if p := b.slot("a", 0); p.State != view.Backoff || p.LastExit.Reason != "start_failed" || p.LastExit.Error != want {
			t.Errorf("%+v, %+v", p, p.LastExit)
		}
		b.reexec() // no reason to refuse a reload: it was so before
		free()
		b.pass(3 * time.Second)
		if p := b.slot("a", 0); p.State != view.Running {
			t.Errorf("once it is free: %+v", p)
		}
	})
}

func TestReloadBindsNewAddressesFirst(t *testing.T) {
	free1, free := takenAddress(t)
	free()
	taken, _ := takenAddress(t)
	inBubble(t, "entries: {a: {command: /bin/a}}", func(t *testing.T, b *bed) {
		one := fmt.Sprintf("{name: one, listen: 'tcp://%s'}", free1)
		b.write(withSockets(one, fmt.Sprintf("{name: two, listen: 'tcp://%s'}", taken)))
		_, err := b.s.Reload(t.Context())
		want := fmt.Sprintf("entries.a.sockets: two: bind tcp://%s: address already in use", taken)
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("the reload says %v, want %s", err, want)
		}
		if answers(free1) {
			t.Error("a reload that was refused left a socket behind")
		}
		b.write(withSockets(one))
		b.failReexec()
		if answers(free1) {
			t.Error("a re-exec that failed left a socket behind")
		}
		b.reexec()
		if !answers(free1) {
			t.Error("not bound")
		}
	})
}

func TestOneSocketPerSlotWithReusePort(t *testing.T) {
	address, free := takenAddress(t)
	free()
	inBubble(t, withSockets(fmt.Sprintf("{name: web, listen: 'tcp://%s', reuse_port: true}", address)), func(t *testing.T, b *bed) {
		p := b.byPath("/bin/a")
		if len(p) != 2 || p[0].spec.Files[0] == p[1].spec.Files[0] {
			t.Fatalf("two slots: %v and %v", p[0].spec.Files, p[1].spec.Files)
		}
		b.reexec()
		b.s.Restart(t.Context(), "a", 1, 1)
		synctest.Wait()
		if q := b.byPath("/bin/a"); q[1].spec.Files[0] != p[1].spec.Files[0] {
			t.Error("a slot has another socket after its restart")
		}
		b.s.Scale(t.Context(), "a", 1)
		synctest.Wait()
		if n := len(b.s.Sockets.Records()); n != 1 {
			t.Errorf("%d sockets of one slot", n)
		}
	})
}
