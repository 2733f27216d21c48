package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSockets(t *testing.T) {
	c := mustParse(t, `
defaults:
  sockets: [{name: never, listen: "tcp://:1"}]
entries:
  web:
    command: x
    sockets:
      - {name: http, listen: "tcp://127.0.0.1:8080"}
      - {name: all, listen: "tcp://:80", reuse_port: true}
      - {name: v6, listen: "tcp://[0:0::1]:443", reuse_port: false}
      - {name: stats, listen: "udp://0.0.0.0:8125"}
      - {name: same-port, listen: "udp://127.0.0.1:8080"}
      - {name: app, listen: "unix:run/app.sock"}
      - {name: admin.1, listen: "unix:/run//admin.sock", mode: "0660"}
`)
	want := []Socket{
		{Name: "http", Network: SocketTCP, Address: "127.0.0.1:8080", Mode: 0o600},
		{Name: "all", Network: SocketTCP, Address: ":80", Mode: 0o600, ReusePort: true},
		{Name: "v6", Network: SocketTCP, Address: "[::1]:443", Mode: 0o600},
		{Name: "stats", Network: SocketUDP, Address: "0.0.0.0:8125", Mode: 0o600},
		{Name: "same-port", Network: SocketUDP, Address: "127.0.0.1:8080", Mode: 0o600},
		{Name: "app", Network: SocketUnix, Address: "/etc/sentryd/run/app.sock", Mode: 0o600},
		{Name: "admin.1", Network: SocketUnix, Address: "/run/admin.sock", Mode: 0o660},
	}
	if diff := cmp.Diff(want, c.Entry("web").Sockets); diff != "" {
		t.Errorf("sockets differ (-want +got):\n%s", diff)
	}
}
