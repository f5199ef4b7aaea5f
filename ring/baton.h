/*
 * A queue has one consumer at a time: whoever holds its baton. Only the holder takes from the queue and
 * touches what belongs to that role. Mostly the holder is the consumer's own thread; while that thread sleeps
 * a producer may hold the baton and do the work inline. core/threads/hand_over.h decides whether it should.
 *
 *	         try, ask, claim
 *	  FREE ------------------> HELD ----- ask, claim -----> WANTED
 *	   ^                       |  ^                            |
 *	   '-------- pass ---------'  |                            | pass: wakes the consumer's thread
 *	                              '---- claim ---- GIVEN <-----'
 *
 * The consumer's thread claims the baton before it looks at the queue. If another thread holds it, the claim
 * leaves WANTED behind and the consumer's thread sleeps; the holder then gives it the baton and wakes it.
 * From WANTED on no producer can take the baton, so a busy producer cannot keep the consumer's thread out.
 *
 * A producer pushes before it asks. If another thread holds the baton, asking leaves WANTED behind too, so
 * the consumer's thread will look at the queue after that push.
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
	BATON_WANTED, /* held; the consumer's thread comes next */
	BATON_GIVEN,  /* reserved for the consumer's thread, which has been woken */
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
/* Any thread. For assertions about what the baton protects; only debug builds have it. */
static inline bool baton_held_by_me(const struct baton *b)
{
	return atomic_load_explicit(&b->holder, memory_order_relaxed) == pthread_self();
}
#endif

/* Debug builds remember who holds the baton: the calling thread, if taken. Returns taken. */
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

/* Producer. Takes a free baton and returns whether it did. If not, it must wake the consumer after a push. */
static inline bool baton_try(struct baton *b)
{
	int expected = BATON_FREE;

	/* Acquire pairs with the release in baton_pass(): the role's data is as the last holder left it. */
	return baton_note_holder(b, atomic_compare_exchange_strong_explicit(&b->state, &expected, BATON_HELD,
					    memory_order_acquire, memory_order_relaxed));
}

/*
 * Producer, after its push. Takes a free baton and returns whether it did. If not, the consumer's thread will
 * look at the queue.
 */
static inline bool baton_ask(struct baton *b)
{
	int state = BATON_FREE;

	for (;;) {
		const int next = state == BATON_FREE   ? BATON_HELD
				 : state == BATON_HELD ? BATON_WANTED
						       : state;

		/*
		 * The state is written even when it stays the same: whoever claims the baton afterwards
		 * acquires this release, and so sees what was pushed.
		 */
		if (atomic_compare_exchange_weak_explicit(
			    &b->state, &state, next, memory_order_acq_rel, memory_order_relaxed))
			return baton_note_holder(b, state == BATON_FREE);
	}
}

/*
 * Consumer's thread, after it took its park ticket. Takes a baton that is free or given and returns whether
 * it did. If not, the thread may sleep: it is woken when the baton is given to it.
 */
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

/*
 * Holder. Frees the baton or, if it is wanted, gives it to the consumer's thread and wakes that; returns
 * whether it was given.
 */
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
	 * It is wanted, and only the holder can change that. An exchange, not a store: it acquires what those
	 * who asked have released, and hands it on to the consumer.
	 */
	atomic_exchange_explicit(&b->state, BATON_GIVEN, memory_order_acq_rel);
	park_wake(b->consumer);
	return true;
}
