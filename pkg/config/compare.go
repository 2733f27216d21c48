package config

import (
	"reflect"
	"slices"
)

// Action is what a reload does to one entry.
type Action string

// The actions, from nothing at all to the end of the entry.
const (
	Keep    Action = "keep"
	Scale   Action = "scale"   // only the number of slots changes
	Update  Action = "update"  // changed in place, processes are not touched
	Restart Action = "restart" // Keys say why
	Add     Action = "add"
	Remove  Action = "remove"
)

// Change is what becomes of one entry.
type Change struct {
	Name     string
	Action   Action
	Keys     []string // those that differ, in the order of the documentation; with Restart the in-place ones too
	Old, New *Entry   // nil for Add and Remove respectively
}

// Changes is the difference between two configurations.
type Changes struct {
	Daemon  []string // daemon-level keys that differ, e.g. http.listen
	Entries []Change // every entry of either, sorted by name
}

// Any says whether anything differs.
func (c Changes) Any() bool {
	return len(c.Daemon) > 0 || slices.ContainsFunc(c.Entries, func(e Change) bool { return e.Action != Keep })
}

// Compare says what a reload from before to after does. It compares what the
// keys mean: an env file by its content, a command by its words.
func Compare(before, after *Config) Changes {
	var c Changes
	for _, section := range []struct {
		name string
		keys []key[file]
	}{{"http", httpKeys}, {"control", controlKeys}, {"proc_connector", connectorKeys}} {
		for _, k := range section.keys {
			if !equal(k.get(&file{Config: before}), k.get(&file{Config: after})) {
				c.Daemon = append(c.Daemon, section.name+"."+k.name)
			}
		}
	}
	a, b := before.Entries, after.Entries
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Name < b[0].Name:
			c.Entries = append(c.Entries, Change{Name: a[0].Name, Action: Remove, Old: a[0]})
			a = a[1:]
		case len(a) == 0 || b[0].Name < a[0].Name:
			c.Entries = append(c.Entries, Change{Name: b[0].Name, Action: Add, New: b[0]})
			b = b[1:]
		default:
			c.Entries = append(c.Entries, compareEntry(a[0], b[0]))
			a, b = a[1:], b[1:]
		}
	}
	return c
}

func compareEntry(before, after *Entry) Change {
	c := Change{Name: after.Name, Action: Keep, Old: before, New: after}
	old, new := draft{Entry: *before}, draft{Entry: *after}
	// A command written in another way that is still the same argv is no change.
	sameArgv := slices.Equal(before.Command, after.Command)
	for _, k := range entryKeys {
		if equal(k.get(&old), k.get(&new)) || sameArgv && (k.name == "command" || k.name == "args") {
			continue
		}
		c.Keys = append(c.Keys, k.name)
		switch {
		case !k.inPlace:
			c.Action = Restart
		case c.Action == Restart:
		case k.name == "count" && c.Action == Keep:
			c.Action = Scale
		default:
			c.Action = Update
		}
	}
	return c
}

// equal compares two values of a key; a list that is empty equals one that is absent.
func equal(a, b any) bool {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	if x.Kind() == reflect.Slice && x.Len() == 0 && y.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a, b)
}
