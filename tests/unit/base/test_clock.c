#include "core/base/clock.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SUSPENDED_S 1000000

enum { SAME, DIFFERENT, NOT_ALLOWED };

static uint64_t read_clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}

/* The exit status of a child in a time namespace that has been suspended for SUSPENDED_S. */
static int compare_in_namespace(void)
{
	int status;

	if (unshare(CLONE_NEWTIME))
		return NOT_ALLOWED;
	const int fd = open("/proc/self/timens_offsets", O_WRONLY);
	if (fd < 0 || dprintf(fd, "boottime %d 0\n", SUSPENDED_S) < 0)
		return NOT_ALLOWED;
	close(fd);
	/* Only children are in it. */
	const pid_t child = fork();
	if (child == 0) {
		const uint64_t before_ns = read_clock_ns(CLOCK_BOOTTIME), now_ns = clock_boottime_ns();
		const uint64_t after_ns = read_clock_ns(CLOCK_BOOTTIME);

		/* Else the two clocks are one, and this would show nothing. */
		if (before_ns < read_clock_ns(CLOCK_MONOTONIC) + SUSPENDED_S / 2 * NS_PER_SEC)
			_exit(NOT_ALLOWED);
		_exit(before_ns <= now_ns && now_ns <= after_ns ? SAME : DIFFERENT);
	}
	return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status)
										     : DIFFERENT;
}

/* Sessions grow old while the machine sleeps. */
Test(clock, of_sessions_counts_the_time_of_a_suspend)
{
	int status;
	const pid_t child = fork();

	cr_assert_geq(child, 0);
	if (child == 0)
		_exit(compare_in_namespace());
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status));
	if (WEXITSTATUS(status) == NOT_ALLOWED)
		cr_skip_test("no time namespace is allowed here");
	cr_assert_eq(WEXITSTATUS(status), SAME);
}
