#include "ring/check.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring/pool.h"

static void fail(void)
{
	const int two = 2;

	CHECK(two + two == 5);
}

static void report(const char *text)
{
	dprintf(STDERR_FILENO, "[%s]", text);
	fail();
}

/* Runs it in a child with standard error in a pipe. Returns the signal that ended it, and what it wrote. */
static int run(void (*function)(void), bool full, char *text, size_t size)
{
	int ends[2], status;
	pid_t child;
	ssize_t len;

	cr_assert_eq(pipe2(ends, O_NONBLOCK), 0);
	while (full && write(ends[1], text, 1) == 1)
		;
	cr_assert_eq(fcntl(ends[1], F_SETFL, 0), 0);
	child = fork();
	cr_assert_geq(child, 0);
	if (child == 0) {
		alarm(20); /* SIGALRM if it waits for a reader */
		dup2(ends[1], STDERR_FILENO);
		function();
		_exit(0);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	len = read(ends[0], text, size - 1);
	text[len > 0 ? len : 0] = '\0';
	close(ends[0]);
	close(ends[1]);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void succeed(void)
{
	int evaluated = 0;

	CHECK(++evaluated == 1);
	_exit(evaluated == 1 ? 0 : 1);
}

static void fail_with_reporter(void)
{
	check_set_reporter(report);
	fail();
}

Test(check, failed_condition_says_where_and_what_and_aborts)
{
	char text[512] = "";

	cr_assert_eq(run(fail, false, text, sizeof(text)), SIGABRT);
	cr_assert(strstr(text, "test_check.c:") && strstr(text, "two + two == 5"), "%s", text);
	cr_assert_eq(text[strlen(text) - 1], '\n');
}

Test(check, true_condition_is_evaluated_once_and_says_nothing)
{
	char text[512] = "";

	cr_assert_eq(run(succeed, false, text, sizeof(text)), 0);
	cr_assert_str_eq(text, "");
}

Test(check, aborts_although_nobody_reads_its_line)
{
	char text[512] = "";

	cr_assert_eq(run(fail, true, text, sizeof(text)), SIGABRT);
}

Test(check, reporter_gets_the_line_and_may_itself_fail)
{
	char text[1024] = "";

	cr_assert_eq(run(fail_with_reporter, false, text, sizeof(text)), SIGABRT);
	cr_assert(strstr(text, "[sluice: ") && strstr(text, "two + two == 5]"), "%s", text);
}

/* What guards memory does so in every build. */
Test(check, pool_of_items_without_room_for_their_link_aborts, .signal = SIGABRT)
{
	struct pool pool;

	cr_assert_eq(pool_init(&pool, 4, sizeof(struct pool_item) - 1, NULL), 0);
}
