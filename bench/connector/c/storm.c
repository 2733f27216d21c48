/*
 * storm N: N children that end at once, made with vfork by two processes, as
 * fast as it goes. Prints how long that took, in nanoseconds.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int storm(long n)
{
	while (n-- > 0) {
		pid_t pid = vfork();
		if (pid == 0)
			_exit(0);
		if (pid < 0 || waitpid(pid, NULL, 0) != pid)
			return 1;
	}
	return 0;
}

static long long now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

int main(int argc, char **argv)
{
	long n = argc == 2 ? atol(argv[1]) : 0;
	if (n < 2) {
		fprintf(stderr, "usage: storm N\n");
		return 2;
	}
	long long began = now();
	pid_t other = fork();
	if (other == 0)
		_exit(storm(n / 2));
	int failed = other < 0 || storm(n - n / 2), status;
	if (other > 0 && (waitpid(other, &status, 0) != other || status != 0))
		failed = 1;
	printf("%lld\n", now() - began);
	return failed;
}
