/*
 * Whoever holds the baton of a queue is its one consumer, and may use all that belongs to that role: mostly the
 * consumer's own thread, sometimes a producer, which then does the consumer's work inline while that thread
 * sleeps. Whether a producer should is decided in core/threads/hand_over.h.
 *
 *	         try, ask, claim
 *	  FREE ------------------> HELD ----- ask, claim -----> WANTED
 *	   ^                       |  ^                            |
 *	   '-------- pass ---------'  |                            | pass: wakes the consumer's thread
 *	                              '---- claim ---- GIVEN <-----'
 *
 * The consumer's thread claims the baton before it looks at the queue. If it is not to be had, the thread goes
 * to sleep, and the holder gives it the baton and wakes it: no producer comes first again, however busy it is.
 * A producer that asks in vain has pushed before, and left its mark (WANTED): so the thread looks after it.
 *
 *	              baton_try   baton_ask   baton_claim   baton_pass
 *	thread        producer    producer    consumer      the holder
 */
#pragma once

#ifndef NDEBUG
#include <pthread.h>
#endif

#include "ring/base.h"
#include "ring/park.h"

enum baton_state {
	BATON_FREE,
	BATON_HELD,
	BATON_WANTED, /* held, and somebody came for it */
	BATON_GIVEN,  /* the consumer's, which is on its way */
};

struct baton {
	CACHE_ALIGNED _Atomic int state;
	struct park *consumer; /* where the consumer's thread sleeps */
#ifndef NDEBUG
	_Atomic pthread_t holder; /* 0: nobody */
#endif
};

static inline void baton_init(struct baton *b, struct park *consumer)
{
	atomic_init(&b->state, BATON_FREE);
	b->consumer = consumer;
#ifndef NDEBUG
	atomic_init(&b->holder, 0);
#endif
}

#ifndef NDEBUG
/* Any thread, debug builds: for assertions of what the baton protects. */
static inline bool baton_held_by_me(const struct baton *b)
{
	return atomic_load_explicit(&b->holder, memory_order_relaxed) == pthread_self();
}
#endif

/* The state says whether a thread holds the baton; this remembers which one. Returns taken. */
static inline bool baton_note_holder(struct baton *b, bool taken)
{
#ifndef NDEBUG
	if (taken)
		atomic_store_explicit(&b->holder, pthread_self(), memory_order_relaxed);
#else
	(void)b;
#endif
	return taken;
}

/* Producer. Whether it holds the baton now; if not, it wakes the consumer after a push. */
static inline bool baton_try(struct baton *b)
{
	int expected = BATON_FREE;

	/* Acquire pairs with the release in baton_pass(): the role's data is as the last holder left it. */
	return baton_note_holder(b, atomic_compare_exchange_strong_explicit(&b->state, &expected, BATON_HELD,
					    memory_order_acquire, memory_order_relaxed));
}

/* Producer, after its push. Whether it holds the baton now; if not, the consumer will look at the queue. */
static inline bool baton_ask(struct baton *b)
{
	int state = BATON_FREE;

	for (;;) {
		const int next = state == BATON_FREE   ? BATON_HELD
				 : state == BATON_HELD ? BATON_WANTED
						       : state;

		/*
		 * Written even where it stays: whoever claims the baton after this acquires it, and so sees
		 * what was pushed.
		 */
		if (atomic_compare_exchange_weak_explicit(
			    &b->state, &state, next, memory_order_acq_rel, memory_order_relaxed))
			return baton_note_holder(b, state == BATON_FREE);
	}
}

/* Consumer. If false it will be woken when the baton is its own; it took its park ticket before this call. */
static inline bool baton_claim(struct baton *b)
{
	int state = BATON_FREE;

	for (;;) {
		const int next = state == BATON_FREE || state == BATON_GIVEN ? BATON_HELD : BATON_WANTED;

		if (atomic_compare_exchange_weak_explicit(
			    &b->state, &state, next, memory_order_acquire, memory_order_acquire))
			return baton_note_holder(b, next == BATON_HELD);
	}
}

/* The holder. Whether the consumer was woken, because the baton is its own now. */
static inline bool baton_pass(struct baton *b)
{
	int expected = BATON_HELD;

#ifndef NDEBUG
	assert(baton_held_by_me(b));
	atomic_store_explicit(&b->holder, 0, memory_order_relaxed);
#endif
	if (likely(atomic_compare_exchange_strong_explicit(
		    &b->state, &expected, BATON_FREE, memory_order_release, memory_order_relaxed)))
		return false;
	/*
	 * Wanted: nobody but the holder leads out of that. Written over what those who asked have released,
	 * not beside it, so that the consumer acquires that too.
	 */
	atomic_exchange_explicit(&b->state, BATON_GIVEN, memory_order_acq_rel);
	park_wake(b->consumer);
	return true;
}
