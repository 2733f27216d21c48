package integration

import (
	"encoding/json"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/sentryd/sentryd/internal/testenv"
)

// TestLongPoll holds GET /v1/state?after= to what it promises.
func TestLongPoll(t *testing.T) {
	d := startDaemon(t, "entries: {a: {command: sleep 100000, count: 1}, b: {command: sleep 100000, autostart: false}}\n", options{})
	s := d.running("a", 1)
	poll := func(after uint64, timeout string) (*state, time.Duration) {
		t.Helper()
		begin := time.Now()
		text := d.get("/v1/state?timeout=" + timeout + "&after=" + strconv.FormatUint(after, 10))
		return d.decode(text), time.Since(begin)
	}
	if now, took := poll(s.Version, "300ms"); now.Version != s.Version || took < 290*time.Millisecond {
		t.Errorf("nothing happened, and after %v there is version %d, was %d", took, now.Version, s.Version)
	}
	if now, took := poll(0, "60s"); now.Version != s.Version || took > testenv.Slow(20*time.Second) {
		t.Errorf("an old version: %v, version %d", took, now.Version)
	}
	if now, took := poll(s.Version+1000, "60s"); now.Version != s.Version || took > testenv.Slow(20*time.Second) {
		t.Errorf("a version to come: %v, version %d", took, now.Version)
	}

	// A change wakes whoever waits, and is in the answer.
	got := make(chan string, 1)
	go func() {
		_, body, _ := d.client.do("GET", "/v1/state?timeout=50s&after="+strconv.FormatUint(s.Version, 10), "", "")
		got <- body
	}()
	status, answer := d.post("/v1/entries/b/start", "{}")
	var result struct {
		Version uint64 `json:"version"`
	}
	if err := json.Unmarshal([]byte(answer), &result); status != 202 || err != nil || result.Version <= s.Version {
		t.Errorf("start: %d %s (%v)", status, answer, err)
	}
	if woken := d.decode(<-got); woken.Version <= s.Version {
		t.Errorf("woken at version %d, which was there", woken.Version)
	}
	status, answer = d.post("/v1/entries/b/stop?wait=30s", "{}")
	var waited struct {
		Version uint64      `json:"version"`
		Entry   *entryState `json:"entry"`
	}
	if err := json.Unmarshal([]byte(answer), &waited); status != 200 || err != nil || waited.Entry == nil || waited.Entry.State != "stopped" {
		t.Errorf("stop: %d %s (%v)", status, answer, err)
	}

	// Over re-execs the version goes on, for those who wait as well: d.decode
	// sees to it.
	before := d.state().Version
	if after := d.reexec().Version; after <= before {
		t.Errorf("version %d before a re-exec, %d after it", before, after)
	}
	d.stop()
}

// TestAnswersInStorm asks the API while 50 slots do nothing but crash.
func TestAnswersInStorm(t *testing.T) {
	d := startDaemon(t, "entries: {storm: {command: \"false\", count: 50, delay: 0}, calm: {command: sleep 100000}}\n", options{})
	d.await("a storm", func(s *state) bool { return s.entry("storm").Exits > 100 })
	asked := often(50, 2000, 2000)
	var took []time.Duration
	for range asked {
		begin := time.Now()
		d.get("/v1/entries/calm")
		took = append(took, time.Since(begin))
	}
	exits := d.state().entry("storm").Exits
	slices.Sort(took)
	t.Logf("answers after %v (median), %v (95 %%), %v (worst); %d exits", took[asked/2], took[asked*95/100], took[asked-1], exits)
	if took[asked/2] > testenv.Slow(200*time.Millisecond) {
		t.Errorf("half of the answers took more than %v", took[asked/2])
	}
	// A command gets through as well.
	if status, answer := d.post("/v1/entries/storm/scale?wait=30s", `{"count": 0}`); status != 200 {
		t.Errorf("scale: %d %s", status, answer)
	}
	s := d.state()
	if e := s.entry("storm"); e.Count != 0 || e.State != "stopped" || e.Starts != e.Exits {
		t.Errorf("after the storm: %+v", e)
	}
	if s.entry("calm").Running != 1 || s.entry("calm").Exits != 0 {
		t.Errorf("calm: %+v", s.entry("calm"))
	}
	d.stop()
}
