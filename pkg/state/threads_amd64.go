package state

import "golang.org/x/sys/unix"

// sysEpollWait is what unix.EpollWait calls.
const sysEpollWait = unix.SYS_EPOLL_WAIT
