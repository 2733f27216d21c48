// Package sockets opens the sockets that programs are started with, and keeps
// them open while the programs come and go: a client that connects while there
// is no program waits in the queue instead of being refused.
//
// A [Set] holds the sockets of one daemon. It opens one when it is first asked
// for, gives the same one whenever it is asked again, and hands all of them
// over to the next image of the daemon. [Reclaim] takes one back from a process
// that it was passed to.
//
// # Whose a socket is
//
// The kernel notes who made a socket, and tells that to whoever asks about a
// connection (sock_diag(7)). A listening TCP socket can be turned into a
// connected one (connect(2) with AF_UNSPEC, then with an address), so a program
// that was given root's socket could act as root towards a server on loopback
// that goes by the client's uid. Hence a socket is given to its user with
// fchown(2) as soon as it is made; since Linux 4.10 that changes what the
// kernel tells. The file of a unix socket gets its owner and its mode before
// anyone can connect.
//
// The package knows sockets and the files of unix sockets. It must not know
// what entries, slots or configurations are, nor how a descriptor reaches a
// program.
package sockets
