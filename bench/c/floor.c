/*
 * floor SLOTS CHILD BOARD MODE LIFE_US: the least that a supervisor can do, as
 * the floor that the others are measured against. It keeps SLOTS children
 * running: clone with CLONE_VM, CLONE_VFORK and CLONE_PIDFD, epoll, waitid per
 * pidfd, and nothing else: no log, no delay, no captured output, no state.
 * SIGTERM ends it: TERM to every child, then reap them all.
 *
 * Two threads share one epoll set, one event at a time, and each starts again
 * the child whose end it was told of: vfork holds its caller until exec, so
 * two start more than one.
 *
 * Each child copies the table of descriptors, as after any plain fork, and exec
 * closes them one by one. With thousands of pidfds that is a good part of a
 * start; a supervisor that spares itself the copy (CLONE_FILES, and close_range
 * with CLOSE_RANGE_UNSHARE) can then be faster than this floor.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

#define THREADS 2
#define STACK 65536
#define STOP UINT64_MAX

extern char **environ;

/* A slot belongs to the thread that took its event; the event for the next
 * child exists only once EPOLL_CTL_ADD has published the slot again. */
static struct slot {
	char *argv[6];
	char number[12];
	int pidfd;
	uint32_t generation; /* tells a late event of an earlier child */
} *slots;

static uint32_t nslots, next_slot;
static int epfd, stopfd;

static void die(const char *what)
{
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static void on_term(int sig)
{
	int saved = errno;
	uint64_t one = 1;
	(void)sig;
	if (write(stopfd, &one, sizeof one) < 0) {
		/* the counter is already up */
	}
	errno = saved;
}

static int child_main(void *arg)
{
	char **argv = arg;
	execve(argv[0], argv, environ);
	_exit(127);
}

static void start(struct slot *s, char *stack)
{
	int fd = -1;
	if (clone(child_main, stack + STACK, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, s->argv, &fd) < 0)
		die("clone");
	s->pidfd = fd;
	s->generation++;
	struct epoll_event ev = {
		.events = EPOLLIN | EPOLLONESHOT, /* the reap wakes once more: not for us */
		.data.u64 = (uint64_t)s->generation << 32 | (uint64_t)(s - slots),
	};
	if (epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev) < 0)
		die("epoll_ctl add");
}

static void *work(void *arg)
{
	char *stack = arg;
	for (;;) {
		uint32_t i = __atomic_fetch_add(&next_slot, 1, __ATOMIC_RELAXED);
		if (i >= nslots)
			break;
		start(&slots[i], stack);
	}
	for (;;) {
		struct epoll_event ev;
		int n = epoll_wait(epfd, &ev, 1, -1);
		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		if (n <= 0)
			continue;
		if (ev.data.u64 == STOP)
			return NULL;
		struct slot *s = &slots[(uint32_t)ev.data.u64];
		if (s->generation != (uint32_t)(ev.data.u64 >> 32))
			continue;
		siginfo_t info = {0};
		if (waitid(P_PIDFD, (id_t)s->pidfd, &info, WEXITED | WNOHANG) < 0)
			die("waitid");
		if (info.si_pid == 0)
			die("waitid: readable, but not dead");
		if (info.si_code == CLD_EXITED && info.si_status >= 100) {
			errno = 0;
			fprintf(stderr, "floor: child %s exited %d\n", s->number, info.si_status);
			_exit(1);
		}
		/* DEL before close: a child between clone and exec holds a copy. */
		epoll_ctl(epfd, EPOLL_CTL_DEL, s->pidfd, NULL);
		close(s->pidfd);
		start(s, stack);
	}
}

int main(int argc, char **argv)
{
	if (argc != 6) {
		fprintf(stderr, "usage: floor SLOTS CHILD BOARD MODE LIFE_US\n");
		return 2;
	}
	nslots = (uint32_t)strtoul(argv[1], NULL, 10);
	slots = calloc(nslots, sizeof *slots);
	epfd = epoll_create1(EPOLL_CLOEXEC);
	stopfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (slots == NULL || epfd < 0 || stopfd < 0)
		die("set up");
	for (uint32_t i = 0; i < nslots; i++) {
		struct slot *s = &slots[i];
		snprintf(s->number, sizeof s->number, "%u", i);
		s->argv[0] = argv[2];
		s->argv[1] = argv[3];
		s->argv[2] = s->number;
		s->argv[3] = argv[4];
		s->argv[4] = argv[5];
	}
	struct epoll_event stop = {.events = EPOLLIN, .data.u64 = STOP}; /* level: both threads see it */
	if (epoll_ctl(epfd, EPOLL_CTL_ADD, stopfd, &stop) < 0)
		die("epoll_ctl add");
	struct sigaction sa = {.sa_handler = on_term, .sa_flags = SA_RESTART};
	sigaction(SIGTERM, &sa, NULL);

	pthread_t threads[THREADS];
	for (int i = 0; i < THREADS; i++) {
		char *stack = aligned_alloc(4096, STACK);
		if (stack == NULL || pthread_create(&threads[i], NULL, work, stack) != 0)
			die("thread");
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);

	for (uint32_t i = 0; i < nslots; i++)
		syscall(SYS_pidfd_send_signal, slots[i].pidfd, SIGTERM, NULL, 0);
	for (uint32_t i = 0; i < nslots; i++) {
		siginfo_t info;
		waitid(P_PIDFD, (id_t)slots[i].pidfd, &info, WEXITED);
	}
	return 0;
}
