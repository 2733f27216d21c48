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
	user, group               named
	groups                    []named
	userAt, groupAt, groupsAt value // not given: the zero value
}

// named is a user or a group as it is given, by name or number, and where. The name is
// empty if it was wrong, which is reported.
type named struct {
	name string
	at   value
}

// accountName is what useradd(8) and adduser(8) let through, and what cannot be
// taken for a number.
var accountName = syntax(`^[A-Za-z_][A-Za-z0-9_.-]*\$?$`)

// account reads the name or the number of a user or a group.
func (v value) account(what string) named {
	text, ok := v.scalar("the name or the number of a " + what)
	if !ok {
		return named{at: v}
	}
	_, number := parseID(text)
	if number || v.node.Tag == "!!str" && accountName.MatchString(text) {
		return named{text, v}
	}
	v.fail("%s is not the name of a %s, nor a number from 0 to %d", v.describe(), what, maxID)
	return named{at: v}
}

// accounts reads a list of users or groups.
func (v value) accounts(what string) (list []named) {
	v.list(func(v value) { list = append(list, v.account(what)) })
	return list
}

// user finds a user, and reports one that is not there. A number need not be in the
// user database: account is nil then.
func (n named) user(db *accounts) (uid uint32, account *Account, ok bool) {
	if n.name == "" {
		return 0, nil, false
	}
	if a, found := db.user(n.name); found {
		return a.uid, &a, true
	}
	if uid, ok = parseID(n.name); !ok {
		n.at.fail("there is no user %q in %s%s", n.name, passwdFile, didYouMean(n.name, db.userNames()))
	}
	return uid, nil, ok
}

// group finds a group, and reports one that is not there.
func (n named) group(db *accounts) (gid uint32, ok bool) {
	if n.name == "" {
		return 0, false
	}
	if gid, ok = db.group(n.name); !ok {
		n.at.fail("there is no group %q in %s%s", n.name, groupFile, didYouMean(n.name, db.groupNames()))
	}
	return gid, ok
}

func readUser(v value, d *draft) { d.id.userAt, d.id.user = v, v.account("user") }

func readGroup(v value, d *draft) { d.id.groupAt, d.id.group = v, v.account("group") }

// maxGroups is NGROUPS_MAX.
const maxGroups = 65536

func readGroups(v value, d *draft) {
	d.id.groupsAt, d.id.groups = v, v.accounts("group")
	if n := len(d.id.groups); n > maxGroups {
		v.fail("%d are too many: a process has at most %d", n, maxGroups)
	}
}

// identity resolves what the entry says of its user; nil if that is nothing. What is
// wrong with one key does not keep the others from being looked at.
func (l *loader) identity(k *identityKeys) *Identity {
	id := &Identity{
		User: k.user.name, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
		group: k.groupAt.given(), groups: k.groupsAt.given(),
	}
	if !k.userAt.given() && !id.group && !id.groups {
		return nil
	}
	db, err := l.accounts()
	if err != nil {
		for _, at := range []value{k.userAt, k.groupAt, k.groupsAt} {
			if at.given() {
				at.fail("%v", err)
			}
		}
		return nil
	}
	other := false // than the daemon's user
	if k.userAt.given() {
		uid, account, ok := k.user.user(db)
		other = ok && uid != id.UID
		id.UID, id.Account = uid, account
		switch {
		case !other:
		case account == nil && !id.group:
			k.userAt.fail("user %s is not in %s: its group must be given as well", k.user.name, passwdFile)
		case account != nil:
			id.GID = account.gid
		}
		if other && l.host.mayBe(uid, k.userAt) && !id.group {
			l.host.mayHave(id.GID, k.userAt)
		}
	}
	if id.group {
		gid, ok := k.group.group(db)
		if id.GID = gid; ok {
			l.host.mayHave(gid, k.groupAt)
		}
	}
	switch {
	case id.groups:
		id.Groups = make([]uint32, 0, len(k.groups))
		for _, g := range k.groups {
			gid, _ := g.group(db)
			id.Groups = append(id.Groups, gid)
		}
		slices.Sort(id.Groups)
		id.Groups = slices.Compact(id.Groups)
		l.host.maySetGroups(k.groupsAt)
	case other && id.Account != nil:
		id.Groups = db.groupsOf(id.Account.Name, id.GID)
	case other:
		id.Groups = []uint32{id.GID}
	}
	return id
}

// control resolves whom `control` names.
func (l *loader) control(users, groups []named) Control {
	return Control{
		Users: l.ids(users, passwdFile, func(n named, db *accounts) (uint32, bool) {
			uid, _, ok := n.user(db)
			return uid, ok
		}),
		Groups: l.ids(groups, groupFile, named.group),
	}
}

// ids resolves users or groups, sorted. Versions of sentryd that did not do this here
// have not recorded the database. From their sources names are left out, until the daemon
// sees that those of the disk are others, and reads them.
func (l *loader) ids(list []named, database string, find func(named, *accounts) (uint32, bool)) []uint32 {
	ids := make([]uint32, 0, len(list))
	for _, n := range list {
		id, ok := parseID(n.name)
		if !ok && !l.files.lack(database) {
			db, err := l.accounts()
			if err != nil {
				n.at.fail("%v", err)
				continue
			}
			id, ok = find(n, db)
		}
		if ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
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
