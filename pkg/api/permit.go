package api

import (
	"os"
	"slices"

	"github.com/sentryd/sentryd/pkg/peer"
)

// Permit says which users may change things: root, the daemon's own user, and
// those that the configuration names. It does not change once made, so it is
// safe for concurrent use.
type Permit struct {
	uids []uint32
	gids []uint32
}

// NewPermit is for users and groups that the configuration names. Groups count on the
// control socket only: of the client of a TCP connection nothing but the user is known.
func NewPermit(users, groups []uint32) *Permit {
	return &Permit{uids: append([]uint32{0, uint32(os.Geteuid())}, users...), gids: groups}
}

// user says whether the owner of a TCP client's socket has the right.
func (p *Permit) user(uid uint32) bool { return slices.Contains(p.uids, uid) }

// cred says whether the peer on the control socket has the right.
func (p *Permit) cred(c peer.Cred) bool {
	return p.user(c.UID) || slices.Contains(p.gids, c.GID) ||
		slices.ContainsFunc(c.Groups, func(g uint32) bool { return slices.Contains(p.gids, g) })
}
