/*
 * CHECK(): an assert() that stays in what users run. It stands where a violated condition would corrupt memory
 * or show some that is not the caller's, because going on is then worse than ending; for all other bugs of ours
 * there is assert(), and for what can happen an error code. The condition is always evaluated.
 */
#pragma once

#define CHECK(condition)                                                                                     \
	do {                                                                                                 \
		if (__builtin_expect(!(condition), 0))                                                       \
			check_failed(__FILE__, __LINE__, #condition);                                        \
	} while (0)

/*
 * Any thread. One line on standard error, unless nobody reads there, and one to the reporter; then SIGABRT.
 * Allocates nothing and takes no lock.
 */
__attribute__((noreturn, cold)) void check_failed(const char *file, int line, const char *condition);
/*
 * Control thread, before other threads run. The reporter gets the line, too, in whichever thread failed. It may
 * allocate no memory and wait for nobody for long. NULL: none, which is how it starts.
 */
void check_set_reporter(void (*report)(const char *text));
