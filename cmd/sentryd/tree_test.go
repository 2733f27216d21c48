package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sentryd/sentryd/pkg/api"
	"github.com/sentryd/sentryd/pkg/view"
)

func TestTreeCommand(t *testing.T) {
	d := newFakeDaemon(t,
		&view.Entry{Name: "api", Processes: []*view.Process{{Slot: 0}}},
		&view.Entry{Name: "web", Processes: []*view.Process{{Slot: 0, PID: 4242}, {Slot: 1, PID: 4300}}},
	)
	const (
		first  = "4242 nginx: master process\n4243 [ng\\x1b[m\\x0ax]\n"
		second = "4300 nginx: master process\n4301 [ng\\x1b[m\\x0ax]\n"
	)
	for line, want := range map[string]string{
		"tree": first + second, "tree web": first + second, "tree web:1": second, "tree api": "", "tree *:0": first,
	} {
		if code, out, errs := sentryd(strings.Fields(line)...); code != 0 || errs != "" || out != want {
			t.Errorf("%s: exit code %d, %q, printed %q", line, code, errs, out)
		}
	}
	if code, _, errs := sentryd("tree", "nope"); code != exitFailed || !strings.Contains(errs, "nope") {
		t.Errorf("%d %q", code, errs)
	}
	if code, out, _ := sentryd("tree", "-o", "json", "web:1"); code != 0 || !strings.Contains(out, `"pid": 4300`) || strings.Contains(out, "4242") {
		t.Errorf("%d %s", code, out)
	}
	client := api.NewClient(d.dir + "/web/" + controlSocket)
	defer client.Close()
	trees, err := (&cli{answerTimeout: answerTimeout}).trees(context.Background(), client, []string{"web:0"})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	drawTrees(&b, trees, time.Now())
	want := "web:0\n    4242   1m30s  S  nginx: master process\n    4243      0s  Z    [ng\\x1b[m\\x0ax]\n"
	if b.String() != want {
		t.Errorf("drawn\n%q, want\n%q", b.String(), want)
	}
}
