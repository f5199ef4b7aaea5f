#include "ring/pool.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ring/sanitize.h"

#define HUGE_PAGE ((size_t)2 << 20)

static void *map(size_t bytes);
static void take_returned(struct pool *pool);
static struct pool_item *take_fresh(struct pool *pool);

int pool_init(struct pool *pool, unsigned count, size_t item_bytes, struct park *owner_park)
{
	size_t stride, bytes;
	void *memory;

	CHECK(count > 0 && item_bytes >= sizeof(struct pool_item));
	stride = ALIGN_UP(item_bytes, (size_t)CACHE_LINE);
	if (__builtin_mul_overflow(count, stride, &bytes) || bytes > PTRDIFF_MAX - 2 * HUGE_PAGE)
		return -ENOMEM;
	bytes = ALIGN_UP(bytes, (size_t)sysconf(_SC_PAGESIZE));
	memory = map(bytes);
	if (!memory)
		return -ENOMEM;
	memset(pool, 0, sizeof(*pool));
	ck_stack_init(&pool->returned);
	pool->count = count;
	pool->item_bytes = stride;
	pool->memory = memory;
	pool->memory_bytes = bytes;
	atomic_init(&pool->park, owner_park);
	ASAN_FORBID(memory, bytes);
	return 0;
}

void pool_done(struct pool *pool)
{
	if (!pool->memory)
		return;
	/* Whatever is mapped here next must not inherit the sanitizer's marks. */
	ASAN_ALLOW(pool->memory, pool->memory_bytes);
	munmap(pool->memory, pool->memory_bytes);
	pool->memory = NULL;
}

void *pool_get(struct pool *pool)
{
	struct pool_item *item;

	/* The buffer that came back last is taken first, so look there even while the own list has some. */
	if (ck_pr_load_ptr(&pool->returned.head))
		take_returned(pool);
	if (pool->free) {
		item = CONTAINER_OF(pool->free, struct pool_item, link);
		pool->free = item->link.next;
	} else {
		item = take_fresh(pool);
		if (!item) {
			counter_add(&pool->empty, 1);
			return NULL;
		}
	}
	counter_add(&pool->taken, 1);
	ASAN_ALLOW(item, pool->item_bytes);
	return item;
}

void *pool_wait(struct pool *pool, const _Atomic bool *stop)
{
	return pool_wait_until(pool, stop, PARK_FOREVER);
}

void *pool_wait_until(struct pool *pool, const _Atomic bool *stop, uint64_t deadline_ns)
{
	struct park *park = atomic_load_explicit(&pool->park, memory_order_relaxed);
	void *object = pool_get(pool);

	assert(park);
	if (likely(object))
		return object;
	/* Pairs with the acquire in pool_put(): who sees the flag also sees which park to wake. */
	atomic_store_explicit(&pool->starved, true, memory_order_release);
	/*
	 * Between setting the flag and looking at the returned buffers once more; pairs with the fence in
	 * pool_put(). Whoever comes second sees what the other wrote: the owner the buffer, or the giver the
	 * flag.
	 */
	ck_pr_fence_store_load();
	for (;;) {
		uint32_t ticket = park_ticket(park);

		object = pool_get(pool);
		if (object || atomic_load_explicit(stop, memory_order_relaxed))
			break;
		if (!park_wait(park, ticket, deadline_ns)) {
			object = pool_get(pool);
			break;
		}
	}
	atomic_store_explicit(&pool->starved, false, memory_order_relaxed);
	return object;
}

void pool_set_park(struct pool *pool, struct park *owner_park)
{
	atomic_store_explicit(&pool->park, owner_park, memory_order_relaxed);
}

void pool_put(void *object)
{
	struct pool_item *item = object;
	struct pool *pool;

	if (!item)
		return;
	pool = item->pool;
	ASAN_FORBID(item + 1, pool->item_bytes - sizeof(*item));
	/*
	 * Pairs with the acquire in pool_in_use(): who counts this return also counts the taking before it.
	 */
	atomic_fetch_add_explicit(&pool->given, 1, memory_order_release);
	/*
	 * The giver's last reads of the buffer must come before the owner's next writes to it, and ck orders
	 * only stores here. Pairs with the fence in ck_stack_batch_pop_upmc().
	 */
	ck_pr_fence_release();
	TSAN_RELEASE(&pool->returned);
	TSAN_IGNORE_WRITES_BEGIN();
	ck_stack_push_upmc(&pool->returned, &item->link);
	TSAN_IGNORE_WRITES_END();
	/* Between giving back and looking for a starving owner; pairs with the fence in pool_wait_until(). */
	ck_pr_fence_atomic_load();
	if (unlikely(atomic_load_explicit(&pool->starved, memory_order_acquire)))
		park_wake(atomic_load_explicit(&pool->park, memory_order_relaxed));
}

unsigned pool_in_use(const struct pool *pool)
{
	uint64_t given = atomic_load_explicit(&pool->given, memory_order_acquire);

	/* taken is read second, so it is never the smaller one. */
	return (unsigned)(counter_read(&pool->taken) - given);
}

/* Puts everything that came back since the last time, newest first, on top of the owner's own list. */
static void take_returned(struct pool *pool)
{
	struct ck_stack_entry *newest = ck_stack_batch_pop_upmc(&pool->returned);
	struct ck_stack_entry *oldest = newest;

	TSAN_ACQUIRE(&pool->returned);
	/* Visits each buffer once for each time it was given back, so the cost per buffer stays constant. */
	while (oldest->next)
		oldest = oldest->next;
	oldest->next = pool->free;
	pool->free = newest;
}

/* Takes a buffer that was never used. They are not in a list, because making one would touch them all. */
static struct pool_item *take_fresh(struct pool *pool)
{
	struct pool_item *item;

	if (pool->fresh == pool->count)
		return NULL;
	item = (struct pool_item *)((char *)pool->memory + pool->fresh * pool->item_bytes);
	pool->fresh++;
	ASAN_ALLOW(item, sizeof(*item));
	item->pool = pool;
	return item;
}

/* Zeroed pages, aligned for huge pages if they fill at least one; NULL without memory. */
static void *map(size_t bytes)
{
	size_t slack = bytes >= HUGE_PAGE ? HUGE_PAGE : 0;
	char *start = mmap(NULL, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *aligned = start;

	if (start == MAP_FAILED)
		return NULL;
	if (slack) {
		aligned = (char *)ALIGN_UP((uintptr_t)start, HUGE_PAGE);
		if (aligned > start)
			munmap(start, (size_t)(aligned - start));
		if (aligned < start + slack)
			munmap(aligned + bytes, (size_t)(start + slack - aligned));
		IGNORE_RESULT("a kernel without huge pages serves small ones",
			madvise(aligned, bytes, MADV_HUGEPAGE));
	}
	IGNORE_RESULT("at worst a core dump holds packets", madvise(aligned, bytes, MADV_DONTDUMP));
	return aligned;
}
