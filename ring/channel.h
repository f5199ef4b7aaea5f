/*
 * Bounded queues of pointers between threads, over ck_ring. A full queue refuses (the caller keeps the item), an
 * item is owned by whoever dequeued it, and every push makes the consumer's park notice.
 *
 *	spsc   one producer, one consumer:   crypto -> udp-tx, udp-rx -> crypto (handshakes)
 *	       and, with CHANNEL_SLOTS slots, udp-rx -> each tun-tx thread
 *	mpsc   many producers, one consumer: tun-rx -> crypto, notes and commands -> crypto
 *
 * The two ends are distinct types: a thread that holds only the sending end cannot receive. The capacity is
 * exact: a queue of 1000 slots holds 1000 items and refuses the 1001st, although ck_ring counts in powers of two.
 * (With several producers racing at the brink an mpsc queue may overshoot its capacity by at most the number of
 * producers minus one; it never loses or doubles an item.)
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
	struct park *consumer; /* woken after each push; NULL in single-threaded use */
	bool many_producers;   /* mpsc: items count from their reservation on, see mpsc_push() */
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
/* After both sides have ended. Items still inside are the caller's to drain first. Accepts a zeroed channel. */
void channel_done(struct channel *ch);

/*
 * Producer. false when full: the item (not NULL) stays the caller's. No producer ever waits for another: one that
 * is preempted in the middle only delays what is pushed after it.
 */
bool spsc_push(struct spsc_tx tx, void *item) MUST_CHECK;
bool mpsc_push(struct mpsc_tx tx, void *item) MUST_CHECK;
/* Consumer. The oldest item, or NULL when empty. */
void *spsc_pop(struct spsc_rx rx);
void *mpsc_pop(struct mpsc_rx rx);
/* Any thread; a snapshot. */
unsigned channel_len(const struct channel *ch);
