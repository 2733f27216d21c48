/*
 * child BOARD SLOT MODE LIFE_US: the child that every contender runs, so that
 * the cost of exec is the same for all. Static and small.
 *
 *   storm  counts itself and ends at once
 *   live   lives LIFE_US microseconds, notes the time, ends; the next child of
 *          the slot finds that time and so knows how long the restart took
 *   stay   stays until SIGTERM, notes the time, ends
 *
 * A child that waits does so on the board's futex: it costs nothing, and when
 * the driver cleans up, all children leave without a signal being sent.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "board.h"

static struct board_header *head;
static struct board_slot *slot;

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void leave(int sig)
{
	(void)sig;
	__atomic_store_n(&slot->exit_ns, now(), __ATOMIC_RELEASE);
	_exit(0);
}

/* Waits for life_us (0 = for ever) or until the driver wants everyone out. */
static void rest(uint64_t life_us)
{
	uint64_t end = now() + life_us * 1000;
	while (__atomic_load_n(&head->quit, __ATOMIC_ACQUIRE) == 0) {
		struct timespec left, *timeout = NULL;
		if (life_us != 0) {
			uint64_t t = now();
			if (t >= end)
				return;
			left.tv_sec = (time_t)((end - t) / 1000000000u);
			left.tv_nsec = (long)((end - t) % 1000000000u);
			timeout = &left;
		}
		syscall(SYS_futex, &head->quit, FUTEX_WAIT, 0, timeout, NULL, 0);
	}
}

int main(int argc, char **argv)
{
	uint64_t started = now(); /* before anything that costs time */

	if (argc < 5)
		return 100;
	int fd = open(argv[1], O_RDWR | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return 101;
	char *base = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		return 102;
	close(fd);
	head = (struct board_header *)base;
	unsigned long n = strtoul(argv[2], NULL, 10);
	if (n >= head->slots)
		return 103;
	slot = (struct board_slot *)(base + BOARD_SLOTS_AT) + n;

	if (strcmp(argv[3], "storm") == 0) {
		__atomic_fetch_add(&head->starts, 1, __ATOMIC_RELAXED);
		return 0;
	}

	struct sigaction sa = {.sa_handler = leave};
	sigaction(SIGTERM, &sa, NULL);

	uint64_t left_at = slot->exit_ns;
	slot->pid = (uint64_t)getpid();
	__atomic_store_n(&slot->start_ns, started, __ATOMIC_RELEASE);
	__atomic_fetch_add(&slot->starts, 1, __ATOMIC_RELEASE);
	__atomic_fetch_add(&head->starts, 1, __ATOMIC_RELEASE);

	if (strcmp(argv[3], "live") == 0) {
		if (left_at != 0) {
			uint64_t *samples = (uint64_t *)(base + BOARD_SLOTS_AT + head->slots * sizeof(*slot));
			uint64_t i = __atomic_fetch_add(&head->samples, 1, __ATOMIC_ACQ_REL);
			if (i < head->room)
				__atomic_store_n(&samples[i], started - left_at, __ATOMIC_RELEASE);
		}
		rest(strtoul(argv[4], NULL, 10) * (75 + started / 1000 % 51) / 100); /* ± 25 %, lest the slots fall into step */
		leave(0);
	}
	rest(0);
	return 0;
}
