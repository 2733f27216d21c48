package api

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"

	"github.com/sentryd/sentryd/pkg/peer"
)

// Permit says which users may change things: root, the daemon's own user, and
// those that the configuration names. It does not change once made, so it is
// safe for concurrent use.
type Permit struct {
	uids []uint32
	gids []uint32
}

// NewPermit resolves the users and groups of the configuration's `control`
// key, names or numbers, once; a change of the user database takes effect with
// the next reload. All that cannot be resolved is said in one joined error.
//
// Groups count on the control socket only: of the client of a TCP connection
// nothing but the user is known.
func NewPermit(users, groups []string) (*Permit, error) {
	p := &Permit{uids: []uint32{0, uint32(os.Geteuid())}}
	var errs []error
	for _, name := range users {
		id, err := resolve(name, func() (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("control.users: %q: %w", name, err))
			continue
		}
		p.uids = append(p.uids, id)
	}
	for _, name := range groups {
		id, err := resolve(name, func() (string, error) {
			g, err := user.LookupGroup(name)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("control.groups: %q: %w", name, err))
			continue
		}
		p.gids = append(p.gids, id)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, nil
}

// resolve reads a number as such and looks up anything else. -1 is nobody's
// number (credentials(7)).
func resolve(name string, lookup func() (string, error)) (uint32, error) {
	number := name
	if _, err := strconv.ParseUint(name, 10, 64); err != nil {
		if number, err = lookup(); err != nil {
			return 0, err
		}
	}
	id, err := strconv.ParseUint(number, 10, 32)
	if err != nil || id == 1<<32-1 {
		return 0, errors.New("not the number of a user or group")
	}
	return uint32(id), nil
}

// user says whether the owner of a TCP client's socket has the right.
func (p *Permit) user(uid uint32) bool { return slices.Contains(p.uids, uid) }

// cred says whether the peer on the control socket has the right.
func (p *Permit) cred(c peer.Cred) bool {
	return p.user(c.UID) || slices.Contains(p.gids, c.GID) ||
		slices.ContainsFunc(c.Groups, func(g uint32) bool { return slices.Contains(p.gids, g) })
}
