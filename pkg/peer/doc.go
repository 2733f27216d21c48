// Package peer says which user is at the other end of a local connection, so
// that a server may decide what that user may do.
//
// There are two kinds of connection, and the kernel tells of both:
//
//   - [Unix] reads the credentials of a unix domain socket's peer
//     (SO_PEERCRED and SO_PEERGROUPS, unix(7)). They were taken when the peer
//     connected and cannot change afterwards.
//   - [TCP] remembers the client's socket of an accepted loopback connection,
//     and [Client.UID] asks sock_diag(7) who owns it. A TCP socket carries no
//     credentials, so this is a question about the present, not the past, and
//     has to be asked with care; see below.
//
// # What makes the answer of Client.UID safe
//
// The client chooses when to close, so it can try to have the question asked
// about something other than its own live socket. For a socket that is closed
// the kernel reports uid 0, root's, and inode 0 (in TIME_WAIT always, on most
// kernels as soon as no file is left); and a lookup of a connection that is
// gone falls back to whatever listens on that port. So an answer counts only if
// all of this holds:
//
//   - both ends have loopback addresses;
//   - the client's socket is found under exactly that pair of addresses, is
//     ESTABLISHED, and has an inode;
//   - it is the socket that was there at accept: the same inode, and the same
//     socket cookie, which the kernel never gives to two sockets of a boot;
//   - our own end is ESTABLISHED too, looked at last. Without that, a client
//     could send, reset, and let another user's connection take over its port
//     before the accept. With it, whoever holds the other end of the pair is
//     the one we are connected with: a second socket cannot take the place
//     without a reset of ours.
//
// The connection must be asked about after the request was read: then the
// sender's socket was still open, and still its, when the request was complete.
//
// # What the kernel cannot tell
//
// A socket belongs to the user who created it (or to whom it was given by
// fchown(2)), not to the process that writes to it. Whoever hands a connected
// socket to another process hands on the right with it, and so does a proxy
// that forwards the requests of others; a server has to refuse requests that
// say they were forwarded. A listener made by root gives no one root's uid:
// what is looked up is the client's socket, never the server's.
//
// In a user namespace, users that have no name there read as the overflow uid
// (65534), on both kinds of connection.
//
// The package knows nothing of HTTP, of sentryd, or of who may do what.
package peer
