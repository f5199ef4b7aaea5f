/*
 * Lets the producer of a spsc queue do the work of its consumer while that one sleeps, instead of waking it:
 *on few CPUs the wake-up and the switch cost more than the work. Whoever holds the baton is the queue's one
 *consumer, and may use what belongs to that role.
 *
 * The consumer's thread claims the baton before it looks at the queue. If it is not to be had, the thread
 *goes to sleep, and the holder wakes it when it passes the baton on, so that nothing stays behind that both
 *believed to be with the other.
 *
 *	              baton_try   baton_claim   baton_pass
 *	thread        producer    consumer      the holder
 */
#pragma once

#include "ring/base.h"
#include "ring/park.h"

enum baton_state {
	BATON_FREE,
	BATON_HELD,
	BATON_WANTED, /* held by the producer, and the consumer came for it */
};

struct baton {
	CACHE_ALIGNED _Atomic int state;
	struct park *consumer; /* where the consumer's thread sleeps */
};

static inline void baton_init(struct baton *b, struct park *consumer)
{
	atomic_init(&b->state, BATON_FREE);
	b->consumer = consumer;
}

/* Producer. Whether it holds the baton now; if not, the consumer is at work or about to be: wake it after a
 * push. */
static inline bool baton_try(struct baton *b)
{
	int expected = BATON_FREE;

	/* Acquire pairs with the release in baton_pass(): the role's data is as the last holder left it. */
	return atomic_compare_exchange_strong_explicit(
		&b->state, &expected, BATON_HELD, memory_order_acquire, memory_order_relaxed);
}

/* Consumer. If false it will be woken when the baton is free; it took its park ticket before this call. */
static inline bool baton_claim(struct baton *b)
{
	int state = BATON_FREE;

	for (;;) {
		const int next = state == BATON_FREE ? BATON_HELD : BATON_WANTED;

		if (atomic_compare_exchange_weak_explicit(
			    &b->state, &state, next, memory_order_acquire, memory_order_acquire))
			return next == BATON_HELD;
	}
}

static inline void baton_pass(struct baton *b)
{
	if (atomic_exchange_explicit(&b->state, BATON_FREE, memory_order_release) == BATON_WANTED)
		park_wake(b->consumer);
}
