package fsm

import (
	"fmt"
	"strings"
)

// describe writes an action for people. A kind that it does not know shows as
// Go's own syntax, which TestPairs holds against.
func describe(a Action) string {
	switch a := a.(type) {
	case Spawn:
		return fmt.Sprintf("spawn %v", a.ID)
	case Send:
		then := ""
		if a.Wake {
			then = " and CONT"
		}
		return fmt.Sprintf("send %s%s to the %v of %v", signalNames(a.Signal), then, a.Scope, a.ID)
	case Release:
		return fmt.Sprintf("release %v", a.ID)
	case Started:
		return fmt.Sprintf("started %v pid %d", a.ID, a.PID)
	case Ended:
		return fmt.Sprintf("ended %v %s", a.ID, describeExit(a.Exit))
	case HandedOver:
		return fmt.Sprintf("%d follows %d of %v", a.PID, a.From, a.ID)
	case CrashLoop:
		return fmt.Sprintf("crash loop of %v: %d within %v", a.ID, a.Count, a.Within)
	case Entered:
		switch {
		case a.State == Backoff:
			return fmt.Sprintf("%v is in backoff until %v", a.ID, a.Next)
		case a.State == Stopping:
			return fmt.Sprintf("%v is stopping, asked for by %v", a.ID, a.By)
		}
		return fmt.Sprintf("%v is %v", a.ID, a.State)
	case Scaled:
		return fmt.Sprintf("scaled %s to %d, asked for by %v", a.Entry, a.Count, a.By)
	case EntryAdded:
		return "added " + a.Entry
	case EntryGone:
		return "removed " + a.Entry
	case SlotGone:
		return "gone " + slotName(a.Entry, a.Slot)
	case Refused:
		return fmt.Sprintf("refused (%s): %s", [...]string{NotFound: "not found", Invalid: "invalid", Conflict: "conflict", Unavailable: "unavailable"}[a.Kind], a.Message)
	case Done:
		return "done"
	}
	return fmt.Sprintf("%#v", a)
}

func describeExit(x *Exit) string {
	text := x.Reason.String()
	switch x.Reason {
	case ReasonExited:
		text = fmt.Sprintf("exited %d", x.Code)
	case ReasonSignaled:
		text = "by " + signalNames(x.Signal)
	case ReasonStartFailed:
		return "start failed: " + x.Error
	}
	return fmt.Sprintf("%s after %v, asked for by %v", text, x.Uptime, x.Initiator)
}

func describeSlot(entry string, s SlotStatus) string {
	text := fmt.Sprintf("%s#%d %v", slotName(entry, s.Slot), s.Incarnation, s.State)
	if s.PID > 0 {
		text += fmt.Sprintf(" pid %d", s.PID)
	}
	if s.NextSet {
		text += fmt.Sprintf(" until %v", s.Next)
	}
	if len(s.Members) > 0 {
		text += fmt.Sprintf(" waits for %v", s.Members)
	}
	if s.Error != "" {
		text += ": " + s.Error
	}
	return text
}

func signalNames(n int) string {
	if name, ok := map[int]string{1: "HUP", 9: "KILL", 15: "TERM", 18: "CONT"}[n]; ok {
		return name
	}
	return strings.TrimSpace(fmt.Sprint("signal ", n))
}
