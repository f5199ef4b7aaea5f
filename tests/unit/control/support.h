/*
 * What the tests of the control side share: a real device without threads behind the configuration, and
 * sockets that are none. Each test is a process.
 */
#pragma once

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/control/config.h"
#include "core/control/uapi.h"
#include "tests/sim/node.h"

#define BENCH_RANDOM_PORT 40000 /* what port 0 becomes, then one more each time */

/* Seconds that something may take which must take less than one: sanitizers are several times slower. */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || __has_feature(address_sanitizer) ||     \
	__has_feature(thread_sanitizer) || !defined(__OPTIMIZE__)
#define ONE_SECOND 30.0
#else
#define ONE_SECOND 1.0
#endif

struct bench {
	struct node *node;
	struct device *dev; /* of node */
	struct config config;
	struct config_target target;
	struct uapi_backend backend;
	unsigned calls;           /* visits to the state thread */
	struct udp_sockets *used; /* what the data threads hold; not owned */
};

/* What the fake sockets are to fail with; the target's functions have no context. */
struct bench_sockets {
	int open_error;
	uint16_t busy_port; /* opening it is -EADDRINUSE */
	int mark_error;
	uint32_t mark;    /* of the sockets opened or marked last */
	unsigned nr_open; /* opened so far */
	uint16_t next_port;
};
extern struct bench_sockets bench_sockets;

struct bench *bench_new(void);
/* Fails when a secret is left over. */
void bench_free(struct bench *b);

/*
 * Feeds the text to a session of its own, in pieces of at most step bytes, and returns all answers. The
 * caller frees it.
 */
char *bench_ask(struct bench *b, const char *text, size_t step);
/* The status that the one answer to text ends in. */
int bench_set(struct bench *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* The answer to get=1. The caller frees it. */
char *bench_get(struct bench *b);
/* Fails unless get=1 answers these lines, the status and the empty line being added. */
void bench_expect(struct bench *b, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* 64 digits that name key number i: the last four bytes are i. Of static buffers, 8 in turn. */
const char *bench_key(uint32_t i);
