// Package api is the outside of sentryd: the HTTP server on the control socket
// and on TCP, the Go client that the commands use, and the wire types that the
// two share.
//
// It knows HTTP, who may do what ([Permit]), and the published picture
// (package view). It must not know how anything is supervised: commands go
// through the [Supervisor] interface, which is declared here and implemented
// elsewhere, and reading never waits for it.
//
// # Who may
//
// State and metrics are open to whoever can connect. Every other route needs a
// right. On the control socket the peer's user and groups give it; on loopback
// TCP the user who owns the client's socket, asked of the kernel after the
// whole request has been read. Nothing else gives it: an address that is not
// loopback is read-only. See [Permit] and the file authorize.go.
//
// # Listening sockets outlive servers
//
// [Listeners] owns the sockets, a [Server] only borrows them (it accepts on a
// duplicate). So a server can be shut down before the daemon executes itself
// anew, the sockets handed over, and, when that fails, another server be
// started on the same sockets. Connections that arrive in between wait in the
// sockets' backlogs.
package api
