package api

import (
	"context"
	"net/http"

	"github.com/sentryd/sentryd/pkg/view"
)

// tree answers GET /v1/entries/NAME/tree. Command lines may tell more than a
// stranger should know, so it takes the right that commands take.
func (s *Server) tree(r *http.Request, _ []byte) (*answer, error) {
	if _, err := parseQuery(r); err != nil {
		return nil, err
	}
	t, err := s.supervisor.Tree(r.PathValue("entry"))
	if err != nil {
		return nil, err
	}
	return reply(http.StatusOK, t)
}

// Tree returns the living processes of an entry.
func (c *Client) Tree(ctx context.Context, entry string) (*view.Tree, error) {
	return get[view.Tree](ctx, c, entryPath(entry, "/tree"))
}
