package config

import (
	"errors"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
)

// The user database, see passwd(5) and group(5). A static binary has no NSS, so
// these files are all there is. They are read like every other file that the
// configuration names: what they said travels with it, so that a re-exec
// resolves each name to the same number. (os/user knows no shell.)
const (
	passwdFile = "/etc/passwd"
	groupFile  = "/etc/group"
)

// maxID is the highest user or group id. The one above is -1, which means "no
// change" to the kernel.
const maxID = math.MaxUint32 - 1

// Account is a user as the user database has it.
type Account struct {
	Name, Home, Shell string
	uid, gid          uint32
}

type group struct {
	name    string
	gid     uint32
	members []string
}

type accounts struct {
	users  []Account
	groups []group
}

// accounts reads the user database once. A file that is not there is an empty one.
func (l *loader) accounts() (*accounts, error) {
	if l.database != nil {
		return l.database, nil
	}
	passwd, err := l.files.read(passwdFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &fs.PathError{Op: "read", Path: passwdFile, Err: err}
	}
	groups, err := l.files.read(groupFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &fs.PathError{Op: "read", Path: groupFile, Err: err}
	}
	l.database = parseAccounts(passwd, groups)
	return l.database, nil
}

// parseAccounts passes over lines that are no entries, as the C library does.
func parseAccounts(passwd, groups []byte) *accounts {
	var a accounts
	for line := range strings.Lines(string(passwd)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) != 7 || f[0] == "" {
			continue
		}
		uid, uidOK := parseID(f[2])
		gid, gidOK := parseID(f[3])
		if !uidOK || !gidOK {
			continue
		}
		u := Account{Name: f[0], Home: f[5], Shell: f[6], uid: uid, gid: gid}
		if u.Home == "" {
			u.Home = "/"
		}
		if u.Shell == "" {
			u.Shell = "/bin/sh"
		}
		a.users = append(a.users, u)
	}
	for line := range strings.Lines(string(groups)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) != 4 || f[0] == "" {
			continue
		}
		if gid, ok := parseID(f[2]); ok {
			a.groups = append(a.groups, group{f[0], gid, strings.Split(f[3], ",")})
		}
	}
	return &a
}

// parseID reads a number of decimal digits, without sign or leading zeros.
func parseID(s string) (id uint32, ok bool) {
	if !decimal.MatchString(s) {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n <= maxID
}

// user finds a user by name, or by number if the name is one.
func (a *accounts) user(name string) (Account, bool) {
	id, number := parseID(name)
	for _, u := range a.users {
		if number && u.uid == id || !number && u.Name == name {
			return u, true
		}
	}
	return Account{}, false
}

// group finds the number of a group. A number need not be in the database.
func (a *accounts) group(name string) (gid uint32, ok bool) {
	if id, number := parseID(name); number {
		return id, true
	}
	for _, g := range a.groups {
		if g.name == name {
			return g.gid, true
		}
	}
	return 0, false
}

// groupsOf are the groups of a user, gid among them, as initgroups(3) has them.
func (a *accounts) groupsOf(user string, gid uint32) []uint32 {
	list := []uint32{gid}
	for _, g := range a.groups {
		if slices.Contains(g.members, user) {
			list = append(list, g.gid)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (a *accounts) userNames() []string {
	names := make([]string, len(a.users))
	for i := range a.users {
		names[i] = a.users[i].Name
	}
	return names
}

func (a *accounts) groupNames() []string {
	names := make([]string, len(a.groups))
	for i := range a.groups {
		names[i] = a.groups[i].name
	}
	return names
}
