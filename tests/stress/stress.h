/*
 * What the stress programs share. They are plain programs because Criterion aborts under thread sanitizer.
 *
 * The environment variable STRESS_ROUNDS sets the number of rounds of each. The defaults take a few seconds
 * on two cores; a build with thread sanitizer does a tenth of them.
 */
#pragma once

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "ring/base.h"
#include "ring/sanitize.h"

/* Whatever the build type: a stress program that checks nothing proves nothing. */
#define REQUIRE(condition, ...)                                                                              \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "FAILED %s:%d: %s: ", __FILE__, __LINE__, #condition);               \
			fprintf(stderr, __VA_ARGS__);                                                        \
			fputc('\n', stderr);                                                                 \
			_Exit(1);                                                                            \
		}                                                                                            \
	} while (0)

/* STRESS_ROUNDS, or else so many. */
uint64_t stress_rounds(uint64_t normal);

/*
 * Watches a number that must keep growing until stress_unwatch(). When it stands still for 20 seconds,
 * somebody sleeps who should not: the program says so and ends with a failure.
 */
void stress_watch(const char *what, const counter_t *progress);
void stress_unwatch(void);

pthread_t stress_start(void *(*run)(void *), void *arg);
void stress_join(pthread_t thread);

/* xorshift64: a seed other than 0, advanced at each call. */
static inline uint64_t stress_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}
