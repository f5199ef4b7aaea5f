/*
 * A bounded pool of equal, cache-aligned buffers.
 *
 * One thread, the owner, takes buffers; any thread gives them back. Reuse is last-in first-out, so that the
 * buffer taken next is the one that is still in cache. The memory is one mapping, backed by huge pages
 * where the kernel has them, excluded from core dumps, and touched only as deep as the pool is ever used.
 *
 *	              pool_get   pool_put   pool_wait   pool_in_use
 *	thread        owner      any        owner       any
 */
#pragma once

#include <ck_stack.h>

#include "ring/base.h"
#include "ring/park.h"

struct pool;

/* First member of every pooled object. */
struct pool_item {
	struct ck_stack_entry link;
	struct pool *pool;
};

struct pool {
	/* owner's side */
	CACHE_ALIGNED struct ck_stack_entry *free;
	unsigned count;
	size_t item_bytes;
	void *memory;
	size_t memory_bytes;
	unsigned fresh; /* index of the first buffer never used so far; count when there is none */
	_Atomic(struct park *) park; /* where the owner sleeps when the pool is empty; see pool_set_park() */
	counter_t empty;             /* times pool_get() found nothing */
	counter_t taken;             /* buffers taken, ever */
	/* everybody's side */
	CACHE_ALIGNED struct ck_stack returned;
	_Atomic bool starved;   /* owner sets it before it parks; pool_put() then wakes it */
	_Atomic uint64_t given; /* buffers given back, ever; taken - given are in use */
};

/*
 * count buffers (at least 1) of item_bytes (at least a pool_item, rounded up to whole cache lines).
 * owner_park stays the caller's; NULL if the owner never waits. Control thread. -ENOMEM.
 */
int pool_init(struct pool *pool, unsigned count, size_t item_bytes, struct park *owner_park) MUST_CHECK;
/* After every user of its buffers has ended. Accepts a zeroed pool. */
void pool_done(struct pool *pool);

/* Owner thread. A buffer (contents undefined after its pool_item), or NULL when all are in use. */
void *pool_get(struct pool *pool);
/*
 * Owner thread, RCU-offline. Like pool_get(), but sleeps until a buffer comes back or *stop is true; then
 * NULL, unless there is a buffer all the same. Who sets *stop calls park_wake() after it.
 */
void *pool_wait(struct pool *pool, const _Atomic bool *stop);
/* The same, and also NULL once deadline_ns (of park_clock_ns()) has passed. */
void *pool_wait_until(struct pool *pool, const _Atomic bool *stop, uint64_t deadline_ns);
/*
 * By a thread that has become the owner: from now on it waits on this park. It must have taken over from the
 * last owner by release and acquire.
 */
void pool_set_park(struct pool *pool, struct park *owner_park);
/* Any thread. Gives back an object whose first member is a struct pool_item. NULL is accepted. */
void pool_put(void *object);
/* Any thread. Buffers now in use. */
unsigned pool_in_use(const struct pool *pool);
