/*
 * A bounded pool of equal, cache-aligned buffers.
 *
 * One thread, the owner, takes buffers; any thread gives them back. Reuse is last-in first-out, so that the
 * buffer taken next is the one that is still in cache. The memory is one mapping, backed by huge pages
 * where the kernel has them, excluded from core dumps, and touched only as deep as the pool is ever used.
 *
 *	         pool_get   pool_put   pool_wait   pool_free_count
 * thread        owner      any        owner       owner
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
	struct park *park; /* where the owner sleeps when the pool is empty; may be NULL if it never waits */
	counter_t empty;   /* times pool_get() found nothing */
	/* everybody's side */
	CACHE_ALIGNED struct ck_stack returned;
	_Atomic bool starved; /* owner sets it before it parks; pool_put() then wakes it */
	_Atomic unsigned out; /* buffers in use: leak checks count it */
};

/* count buffers of item_bytes (rounded up to whole cache lines). Control thread. -ENOMEM. */
int pool_init(struct pool *pool, unsigned count, size_t item_bytes, struct park *owner_park) MUST_CHECK;
/* After every user of its buffers has ended. Accepts a zeroed pool. */
void pool_done(struct pool *pool);

/* Owner thread. A buffer (contents undefined after its pool_item), or NULL when all are in use. */
void *pool_get(struct pool *pool);
/* Owner thread. Like pool_get(), but parks (RCU-offline is the caller's duty) until one returns or *stop is true (then NULL). */
void *pool_wait(struct pool *pool, const _Atomic bool *stop);
/* Any thread. Gives back an object whose first member is a struct pool_item. NULL is accepted. */
void pool_put(void *object);
/* Any thread. Buffers now in use. */
unsigned pool_in_use(const struct pool *pool);
