#include "ring/check.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ring/base.h"

static void (*_Atomic reporter)(const char *text);

void check_failed(const char *file, int line, const char *condition)
{
	void (*report)(const char *text) = atomic_load(&reporter);
	struct pollfd standard_error = {.fd = STDERR_FILENO, .events = POLLOUT};
	char text[256];
	int len = snprintf(text, sizeof(text), "sluice: %s:%d: check failed: %s\n", file, line, condition);

	if (len >= (int)sizeof(text)) {
		len = sizeof(text) - 1;
		text[len - 1] = '\n';
	}
	/*
	 * A reader that hangs must not keep us from ending. A pipe that is writable has room for this line.
	 */
	if (len > 0 && poll(&standard_error, 1, 0) == 1 && standard_error.revents & POLLOUT)
		IGNORE_RESULT("nothing is left to do about it", write(STDERR_FILENO, text, (size_t)len));
	if (report) {
		/* A check that fails inside the reporter must not call it again. */
		atomic_store(&reporter, NULL);
		if (len > 0)
			text[len - 1] = '\0';
		report(text);
	}
	abort();
}

void check_set_reporter(void (*report)(const char *text))
{
	atomic_store(&reporter, report);
}
