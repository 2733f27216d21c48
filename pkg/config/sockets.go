package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Values of Socket.Network.
const (
	SocketTCP  = "tcp"
	SocketUDP  = "udp"
	SocketUnix = "unix"
)

// Socket is a socket that the processes of an entry are started with.
type Socket struct {
	Name    string // for LISTEN_FDNAMES; unique in its entry
	Network string // SocketTCP, SocketUDP or SocketUnix
	// Address is HOST:PORT, where HOST is an IP address in its usual form or
	// empty for all, or the absolute path of a unix socket. No two sockets of
	// a configuration have the same.
	Address   string
	Mode      uint32 // permission bits of a unix socket's file
	ReusePort bool   // a socket for each slot instead of one for all; not for unix
}

// defaultSocketMode lets nobody but the entry's user connect.
const defaultSocketMode = 0o600

// maxSocketPath is the size of sun_path less the final NUL (unix(7)).
const maxSocketPath = 107

// socketDraft is a socket while it is read, and where its keys are given.
type socketDraft struct {
	Socket
	base                            string
	nameAt, listenAt, modeAt, reuse value
}

func (v value) given() bool { return v.errs != nil }

var socketKeys = []key[socketDraft]{
	{name: "name", read: readSocketName},
	{name: "listen", read: readSocketAddress},
	{name: "mode", read: readSocketMode},
	{name: "reuse_port", read: func(v value, s *socketDraft) { s.reuse = v; v.truth(&s.ReusePort) }},
}

func readSockets(v value, d *draft) {
	d.Sockets, d.socketsAt = nil, nil
	v.list(func(v value) {
		s := socketDraft{Socket: Socket{Mode: defaultSocketMode}, base: d.base}
		errors := len(*v.errs)
		s.check(v, decode(v, socketKeys, &s))
		if len(*v.errs) > errors {
			return
		}
		if slices.ContainsFunc(d.Sockets, func(other Socket) bool { return other.Name == s.Name }) {
			s.nameAt.fail("%s is the name of two sockets", s.nameAt.describe())
			return
		}
		d.Sockets = append(d.Sockets, s.Socket)
		d.socketsAt = append(d.socketsAt, s.listenAt)
	})
}

func readSocketName(v value, s *socketDraft) {
	s.nameAt = v
	if v.text(&s.Name) && !nameSyntax.MatchString(s.Name) {
		v.fail("%s is not a name: %s", v.describe(), nameRule)
	}
}

var octalMode = syntax(`^0?[0-7]{3}$`)

func readSocketMode(v value, s *socketDraft) {
	s.modeAt = v
	var text string
	if !v.text(&text) {
		return
	}
	if !octalMode.MatchString(text) {
		v.fail(`%s is not a mode: write three octal digits in quotes ("0660")`, v.describe())
		return
	}
	mode, _ := strconv.ParseUint(text, 8, 32) // it matches
	s.Mode = uint32(mode)
}

func readSocketAddress(v value, s *socketDraft) {
	s.listenAt = v
	text, ok := v.scalar("an address to listen on")
	if !ok {
		return
	}
	var problem string
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		s.Network = SocketUnix
		s.Address, problem = socketPath(s.base, path)
	} else {
		s.Network, s.Address, problem = socketAddress(text)
	}
	if problem != "" {
		v.fail("%s %s", v.describe(), problem)
	}
}

func socketPath(base, path string) (string, string) {
	switch {
	case path == "" || strings.HasPrefix(path, "//") || strings.HasSuffix(path, "/"):
		return "", "is not the path of a socket: write unix:/run/web.sock"
	case strings.HasPrefix(path, "@"):
		return "", "is not the path of a socket: abstract ones are open to everybody and not supported"
	}
	path = absolute(base, path)
	if len(path) > maxSocketPath {
		return "", fmt.Sprintf("is too long: the path has %d bytes and a socket's can have %d", len(path), maxSocketPath)
	}
	return filepath.Clean(path), ""
}

func socketAddress(text string) (network, address, problem string) {
	const want = "is not an address: write tcp://127.0.0.1:8080, udp://127.0.0.1:8125 or unix:/run/web.sock"
	network, rest, _ := strings.Cut(text, "://")
	if network != SocketTCP && network != SocketUDP {
		return "", "", want
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		return "", "", want
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || !portText.MatchString(port) {
		return "", "", "is not an address: the port must be a number from 1 to 65535"
	}
	if host != "" {
		// Names are not looked up: that may take long, and change.
		ip, err := netip.ParseAddr(host)
		if err != nil || ip.Zone() != "" || ip.Is4In6() {
			return "", "", "is not an address: the host must be an IP address, such as 127.0.0.1 or [::1], or empty for all"
		}
		host = ip.String()
	}
	return network, net.JoinHostPort(host, port), ""
}

// check reports what is missing of a socket given at v, unless it is meant by an unknown
// key, and what does not go together.
func (s *socketDraft) check(v value, meant []string) {
	if !s.nameAt.given() && !slices.Contains(meant, "name") {
		v.fail(`the key "name" is missing`)
	}
	if !s.listenAt.given() && !slices.Contains(meant, "listen") {
		v.fail(`the key "listen" is missing`)
	}
	switch {
	case s.Address == "":
	case s.Network != SocketUnix && s.modeAt.given():
		s.modeAt.fail("is for unix sockets only: they are files")
	case s.Network == SocketUnix && s.ReusePort:
		s.reuse.fail("is for tcp and udp only")
	}
}

// socketAddresses sees to it that no address is listened on twice.
func (l *loader) socketAddresses(e *Entry, at []value) {
	for i, s := range e.Sockets {
		address := s.Network + " " + s.Address
		switch before := l.sockets[address]; {
		case before != nil:
			at[i].fail("%s is listened on by %s already (%s:%d)", at[i].describe(), before.Name, before.File, before.Line)
		case s.Network == SocketTCP && slices.Contains(l.config.HTTP.Listen, s.Address):
			at[i].fail("%s is sentryd's own: http.listen", at[i].describe())
		default:
			l.sockets[address] = e
		}
	}
}
