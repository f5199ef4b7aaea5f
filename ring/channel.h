/*
 * Bounded queues of pointers between threads, over ck_ring. A full queue refuses, and the caller keeps the
 * item. An item that was popped belongs to who popped it. A push wakes the consumer's
 * park, if the queue has one.
 *
 *	spsc   one producer, one consumer:   state -> udp-tx, udp-rx -> state (handshakes)
 *	       and, with CHANNEL_SLOTS slots, udp-rx -> each tun-tx thread
 *	mpsc   many producers, one consumer: tun-rx -> state, notes and commands -> state
 *
 * The two ends are distinct types: a thread that holds only the sending end cannot receive. The capacity is
 * exact: a queue of 1000 slots holds 1000 items and refuses the 1001st, although ck_ring counts in powers of
 * two. Only producers that race for the last slots of an mpsc queue may exceed it, by at most their number
 * minus one.
 */
#pragma once

#include <ck_ring.h>

#include "ring/base.h"
#include "ring/park.h"

#define CHANNEL_SLOTS 1000

struct channel_counters {
	counter_t high_water; /* largest length seen after a push; racy between mpsc producers */
	counter_t refused;    /* pushes refused because the queue was full; same */
};

struct channel {
	struct ck_ring ring;
	struct ck_ring_buffer *slots;
	unsigned capacity;
	struct park *consumer; /* woken after each push; NULL: by whoever pushes, if by anybody */
	bool many_producers;   /* mpsc: an item counts from its reservation on, see mpsc_push() */
	CACHE_ALIGNED struct channel_counters counters; /* written by the producers */
};

struct spsc_tx {
	struct channel *ch;
};
struct spsc_rx {
	struct channel *ch;
};
struct mpsc_tx {
	struct channel *ch;
};
struct mpsc_rx {
	struct channel *ch;
};

/* Control thread. capacity 1..2^20. Writes both ends on success. -EINVAL, -ENOMEM. */
int spsc_init(struct channel *ch, unsigned capacity, struct park *consumer, struct spsc_tx *tx,
	struct spsc_rx *rx) MUST_CHECK;
int mpsc_init(struct channel *ch, unsigned capacity, struct park *consumer, struct mpsc_tx *tx,
	struct mpsc_rx *rx) MUST_CHECK;
/* After both sides have ended and the caller has drained the queue. Accepts a zeroed channel. */
void channel_done(struct channel *ch);

/*
 * Producer. False when full: the item (not NULL) stays the caller's. No producer ever waits for another; one
 * that is preempted in the middle of a push only delays the items behind its own.
 */
bool spsc_push(struct spsc_tx tx, void *item) MUST_CHECK;
bool mpsc_push(struct mpsc_tx tx, void *item) MUST_CHECK;
/* Consumer. The oldest item, or NULL when empty. */
void *spsc_pop(struct spsc_rx rx);
void *mpsc_pop(struct mpsc_rx rx);
/* Any thread; a snapshot. */
unsigned channel_len(const struct channel *ch);
