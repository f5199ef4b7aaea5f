/*
 * A bounded queue of log lines from any thread to the one that writes them. The lines lie in the queue itself, so
 * that logging allocates nothing; its memory is touched only as deep as it is ever filled.
 *
 *	        reserve, commit   peek, release   take_lost
 * thread         any            writer          writer
 *
 * Lines come out in the order of their reservation, hence those of one thread in the order in which it logged.
 * Nobody waits: a full queue refuses and counts, and a producer that is preempted between reserve and commit
 * only delays what was reserved after it. A zeroed queue is empty.
 */
#pragma once

#include "ring/base.h"

#define LOG_RING_LINES 1024 /* a power of two */
#define LOG_MESSAGE_BYTES 1024
#define LOG_THREAD_BYTES 16 /* as the kernel's names of threads */

struct log_line {
	uint64_t lost;        /* how many were refused before this one, and are not counted elsewhere */
	uint64_t realtime_ns; /* of logging, not of writing */
	uint8_t level, component;
	char thread[LOG_THREAD_BYTES]; /* who logged it */
	char message[LOG_MESSAGE_BYTES];
};

struct log_slot {
	/*
	 * In lap n of the queue: 2n while the slot is free or being filled, 2n + 1 once it is committed. The
	 * release of each store pairs with the acquire of whoever has the slot next.
	 */
	_Atomic uint64_t state;
	struct log_line line;
};

struct log_ring {
	CACHE_ALIGNED _Atomic uint64_t reserved; /* lines reserved, ever */
	_Atomic uint64_t lost;                   /* lines refused since this was last told */
	CACHE_ALIGNED _Atomic uint64_t released; /* lines done with, ever; written by the writer */
	struct log_slot slot[LOG_RING_LINES];
};

/*
 * Any thread. A line to fill in, all but lost, and commit at once; NULL when there is no room. After a refusal a
 * quarter of the queue must be free again, so that losses are told together and not one by one.
 */
struct log_line *log_ring_reserve(struct log_ring *ring);
void log_ring_commit(struct log_line *line);

/* Writer. The oldest line, or NULL when it is not committed yet or there is none; release it before the next. */
const struct log_line *log_ring_peek(struct log_ring *ring);
void log_ring_release(struct log_ring *ring);
/* Writer. How many lines were refused after the last one that could be reserved. */
uint64_t log_ring_take_lost(struct log_ring *ring);
