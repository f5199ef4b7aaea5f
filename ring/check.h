/*
 * CHECK(): an assert() that stays in what users run, and always evaluates its condition. It is for conditions
 * whose violation would corrupt memory or disclose some, where going on is worse than ending. For other bugs
 * of ours there is assert(); what can happen without a bug gives an error code.
 */
#pragma once

#define CHECK(condition)                                                                                     \
	do {                                                                                                 \
		if (__builtin_expect(!(condition), 0))                                                       \
			check_failed(__FILE__, __LINE__, #condition);                                        \
	} while (0)

/*
 * Any thread. Writes one line to standard error, unless nobody reads it, and gives it to the reporter; then
 * SIGABRT. Allocates nothing and takes no lock.
 */
__attribute__((noreturn, cold)) void check_failed(const char *file, int line, const char *condition);
/*
 * Control thread, before other threads run. The reporter is called with the line too, in the thread that
 * failed. It must allocate no memory and not wait for long. NULL, as at the start: none.
 */
void check_set_reporter(void (*report)(const char *text));
