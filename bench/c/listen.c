/*
 * listen: a listener of the proc connector that reads and throws away, to show
 * what a listener costs those who start processes. Prints a line when it is
 * subscribed, and at the end of its standard input how many events it read and
 * how often some were lost.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 64

int main(void)
{
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR);
	struct sockaddr_nl addr = {.nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC};
	int size = 64 << 20;
	struct {
		struct nlmsghdr nl;
		struct cn_msg cn;
		enum proc_cn_mcast_op op;
	} __attribute__((packed)) req = {
		.nl = {.nlmsg_len = sizeof req, .nlmsg_type = NLMSG_DONE},
		.cn = {.id = {CN_IDX_PROC, CN_VAL_PROC}, .len = sizeof req.op},
		.op = PROC_CN_MCAST_LISTEN,
	};
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0 ||
	    send(fd, &req, sizeof req, 0) < 0) {
		fprintf(stderr, "listen: %s\n", strerror(errno));
		return 1;
	}
	puts("subscribed");
	fflush(stdout);

	static char bufs[BATCH][256];
	struct iovec iov[BATCH];
	struct mmsghdr msgs[BATCH] = {0};
	for (int i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){bufs[i], sizeof bufs[i]};
		msgs[i].msg_hdr.msg_iov = &iov[i];
		msgs[i].msg_hdr.msg_iovlen = 1;
	}
	unsigned long events = 0, overruns = 0;
	struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
	for (int ending = 0;;) { /* then what is queued is still read */
		if (!ending && poll(fds, 2, -1) < 0 && errno != EINTR)
			return 1;
		ending |= fds[1].revents != 0;
		int n = recvmmsg(fd, msgs, BATCH, MSG_DONTWAIT, NULL);
		if (n > 0)
			events += (unsigned long)n;
		else if (n < 0 && errno == ENOBUFS)
			overruns++;
		else if (n < 0 && errno == EAGAIN && ending)
			break;
		else if (n < 0 && errno != EAGAIN && errno != EINTR)
			return 1;
	}
	printf("%lu events, %lu overruns\n", events, overruns);
	return 0;
}
