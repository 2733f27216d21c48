package config

import (
	"os"
	"slices"
)

// Identity is who the processes of an entry are.
type Identity struct {
	User     string // as configured; "" if it is not
	UID, GID uint32
	// Groups are the supplementary groups, sorted; nil: the daemon's own.
	Groups []uint32
	// Account is what the user database has of User, nil for nothing.
	Account *Account

	group, groups bool // were given
}

// identityKeys is what an entry says of its user, while it is read.
type identityKeys struct {
	user, group     string
	groups          []string // nil when not given
	userAt, groupAt value    // where each is given
	groupsAt        value
	groupValues     []value // of each element
	invalid         bool    // an error was reported already
}

// accountName is what useradd(8) and adduser(8) let through, and what cannot be
// taken for a number.
var accountName = syntax(`^[A-Za-z_][A-Za-z0-9_.-]*\$?$`)

// account reads the name or the number of a user or a group.
func (v value) account(what string, to *string) bool {
	text, ok := v.scalar("the name or the number of a " + what)
	if !ok {
		return false
	}
	_, number := parseID(text)
	if number || v.node.Tag == "!!str" && accountName.MatchString(text) {
		*to = text
		return true
	}
	v.fail("%s is not the name of a %s, nor a number from 0 to %d", v.describe(), what, maxID)
	return false
}

func readUser(v value, d *draft) {
	d.id.userAt = v
	if !v.account("user", &d.id.user) {
		d.id.invalid = true
	}
}

func readGroup(v value, d *draft) {
	d.id.groupAt = v
	if !v.account("group", &d.id.group) {
		d.id.invalid = true
	}
}

// maxGroups is NGROUPS_MAX.
const maxGroups = 65536

func readGroups(v value, d *draft) {
	d.id.groupsAt = v
	names, values := make([]string, 0, len(v.node.Content)), []value(nil)
	good := true
	isList := v.list(func(v value) {
		var name string
		good = v.account("group", &name) && good
		names, values = append(names, name), append(values, v)
	})
	if isList && len(names) > maxGroups {
		v.fail("%d are too many: a process has at most %d", len(names), maxGroups)
		good = false
	}
	if !isList || !good {
		d.id.invalid = true
	}
	d.id.groups, d.id.groupValues = names, values
}

// identity resolves what the entry says of its user; nil if that is nothing, or wrong.
func (l *loader) identity(k *identityKeys) *Identity {
	if k.invalid || k.user == "" && k.group == "" && k.groups == nil {
		return nil
	}
	db, err := l.accounts()
	if err != nil {
		for _, at := range []value{k.userAt, k.groupAt, k.groupsAt} {
			if at.errs != nil { // the key is given
				at.fail("%v", err)
			}
		}
		return nil
	}
	id := &Identity{
		User: k.user, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
		group: k.group != "", groups: k.groups != nil,
	}
	other := false // than the daemon's user
	if k.user != "" {
		account, found := db.user(k.user)
		if found {
			id.Account = &account
		} else if number, ok := parseID(k.user); !ok {
			k.userAt.fail("there is no user %q in %s%s", k.user, passwdFile, didYouMean(k.user, db.userNames()))
			return nil
		} else {
			account.uid = number
		}
		other, id.UID = account.uid != id.UID, account.uid
		switch {
		case found && other:
			id.GID = account.gid
		case !found && !id.group && other:
			k.userAt.fail("user %s is not in %s: its group must be given as well", k.user, passwdFile)
			return nil
		}
	}
	if id.group {
		gid, ok := db.group(k.group)
		if !ok {
			k.groupAt.fail("there is no group %q in %s%s", k.group, groupFile, didYouMean(k.group, db.groupNames()))
			return nil
		}
		id.GID = gid
	}
	switch {
	case id.groups:
		id.Groups = make([]uint32, 0, len(k.groups))
		for i, name := range k.groups {
			gid, ok := db.group(name)
			if !ok {
				k.groupValues[i].fail("there is no group %q in %s%s", name, groupFile, didYouMean(name, db.groupNames()))
				continue
			}
			id.Groups = append(id.Groups, gid)
		}
		slices.Sort(id.Groups)
		id.Groups = slices.Compact(id.Groups)
	case other && id.Account != nil:
		id.Groups = db.groupsOf(id.Account.Name, id.GID)
	case other:
		id.Groups = []uint32{id.GID}
	}
	l.host.mayBe(id, k)
	return id
}

// What each of the three keys decides, for the comparison: user also what the
// others would if they were given.
func userDecides(d *draft) any {
	id := d.Identity
	if id == nil || id.User == "" {
		return nil
	}
	decides := []any{id.UID, id.Account}
	if !id.group {
		decides = append(decides, id.GID)
	}
	if !id.groups {
		decides = append(decides, id.Groups)
	}
	return decides
}

func groupDecides(d *draft) any {
	if d.Identity == nil || !d.Identity.group {
		return nil
	}
	return d.Identity.GID
}

func groupsDecide(d *draft) any {
	if d.Identity == nil || !d.Identity.groups {
		return nil
	}
	return []any{d.Identity.Groups} // no group is not the same as no key
}
