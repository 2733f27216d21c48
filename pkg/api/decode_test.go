package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"testing"
)

// checkProblem fails unless err is nil or a refusal that a client may see.
func checkProblem(t *testing.T, err error) {
	t.Helper()
	if p := (*problem)(nil); err != nil && (!errors.As(err, &p) || p.status != http.StatusBadRequest) {
		t.Errorf("not a bad request: %v", err)
	}
}

func FuzzScaleForm(f *testing.F) {
	for _, s := range []string{"scale=3", "scale=017", "scale=-1", "scale=1e9", "scale=", "scale=1&scale=2", "scale=%31", "a=%zz", "scale=10000"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		n, err := decodeForm(body, "scale")
		checkProblem(t, err)
		if err == nil && (n < 0 || n > MaxCount) {
			t.Errorf("%q gives %d", body, n)
		}
	})
}

func FuzzNumber(f *testing.F) {
	for _, s := range []string{"0", "10000", "10001", "00", "+1", " 1", "1_0", "٣", "99999", "100000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := number("x", s, 0, MaxCount)
		checkProblem(t, err)
		// A number is accepted if and only if it is written as it would be printed.
		if want, convErr := strconv.Atoi(s); err == nil && strconv.Itoa(n) != s ||
			err != nil && convErr == nil && want >= 0 && want <= MaxCount && strconv.Itoa(want) == s {
			t.Errorf("%q gives %d, %v", s, n, err)
		}
	})
}

func FuzzCommandBody(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"slot": 1}`, `{"slot": 1, "slot": 2}`, `{"batch": 2, "all_at_once": false}`, `{"signal": "HUP"}`, `{"signal": "\u0000"}`,
		`{"slot": 1} x`, `[`, `{"slot"`, `{"slot":`, `{"slot": 1,}`, `{"slot": {"slot": 1}}`, `null`, ``, "{\"\xff\": 1}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		slot, batch, allAtOnce, signal := AllSlots, 0, false, 0
		err := decodeObject(body, fields{
			"slot": numberField("slot", 0, MaxCount-1, &slot), "batch": numberField("batch", 1, MaxCount, &batch),
			"all_at_once": boolField("all_at_once", &allAtOnce), "signal": signalField(&signal),
		})
		checkProblem(t, err)
		if err != nil {
			return
		}
		if slot < AllSlots || slot >= MaxCount || batch < 0 || batch > MaxCount || signal < 0 || signal > sigRTMax {
			t.Errorf("%q gives slot %d, batch %d, signal %d", body, slot, batch, signal)
		}
		// What is accepted here, the lenient reader of the library accepts too, and reads alike.
		var lenient struct {
			Slot      *int `json:"slot"`
			AllAtOnce bool `json:"all_at_once"`
		}
		if err := json.Unmarshal(body, &lenient); err != nil || lenient.AllAtOnce != allAtOnce ||
			(lenient.Slot == nil) != (slot == AllSlots) || lenient.Slot != nil && *lenient.Slot != slot {
			t.Errorf("%q is read differently: %+v, %v", body, lenient, err)
		}
	})
}
