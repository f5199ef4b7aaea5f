#include "ring/pool.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "ring/sanitize.h"

#define HUGE_PAGE ((size_t)2 << 20)

struct buffer {
	struct pool_item item;
	unsigned char data[300];
};

static void nap_ms(long ms)
{
	nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

Test(pool, gives_every_buffer_once_and_then_none)
{
	struct pool pool;
	struct buffer *all[100];

	cr_assert_eq(pool_init(&pool, 100, sizeof(struct buffer), NULL), 0);
	for (unsigned i = 0; i < 100; i++) {
		cr_assert_eq(pool_in_use(&pool), i);
		all[i] = pool_get(&pool);
		cr_assert_not_null(all[i]);
		memset(all[i]->data, (int)i, sizeof(all[i]->data));
	}
	cr_assert_eq(counter_read(&pool.empty), 0);
	cr_assert_null(pool_get(&pool));
	cr_assert_eq(counter_read(&pool.empty), 1);
	cr_assert_eq(pool_in_use(&pool), 100);
	for (unsigned i = 0; i < 100; i++) {
		cr_assert_eq((uintptr_t)all[i] % CACHE_LINE, 0);
		cr_assert_eq(all[i]->item.pool, &pool);
		for (size_t b = 0; b < sizeof(all[i]->data); b++)
			cr_assert_eq(all[i]->data[b], i, "buffers overlap");
		pool_put(all[i]);
	}
	cr_assert_eq(pool_in_use(&pool), 0);
	for (unsigned i = 0; i < 100; i++)
		cr_assert_not_null(pool_get(&pool));
	cr_assert_null(pool_get(&pool));
	pool_done(&pool);
}

Test(pool, works_with_a_single_buffer)
{
	struct pool pool;
	struct buffer *only;

	cr_assert_eq(pool_init(&pool, 1, sizeof(struct buffer), NULL), 0);
	only = pool_get(&pool);
	for (unsigned i = 0; i < 1000; i++) {
		cr_assert_null(pool_get(&pool));
		pool_put(only);
		cr_assert_eq(pool_get(&pool), only);
	}
	pool_done(&pool);
}

Test(pool, hands_out_what_came_back_last)
{
	struct pool pool;
	void *a, *b, *c;

	cr_assert_eq(pool_init(&pool, 8, sizeof(struct buffer), NULL), 0);
	a = pool_get(&pool);
	b = pool_get(&pool);
	c = pool_get(&pool);
	pool_put(a);
	pool_put(b);
	cr_assert_eq(pool_get(&pool), b);
	/* a waits on the owner's own list by now; c is the warmer one. */
	pool_put(c);
	cr_assert_eq(pool_get(&pool), c);
	cr_assert_eq(pool_get(&pool), a);
	pool_done(&pool);
}

Test(pool, prefers_a_used_buffer_to_a_fresh_one)
{
	struct pool pool;
	void *first;

	cr_assert_eq(pool_init(&pool, 8, sizeof(struct buffer), NULL), 0);
	first = pool_get(&pool);
	pool_put(first);
	cr_assert_eq(pool_get(&pool), first);
	pool_done(&pool);
}

Test(pool, agrees_with_a_stack_of_pointers_on_random_gets_and_puts)
{
	enum { COUNT = 40 };
	unsigned seed = (unsigned)time(NULL);
	struct pool pool;
	void *back[COUNT], *held[COUNT];
	unsigned nr_back = 0, nr_held = 0, nr_fresh = COUNT;
	uint64_t empty = 0;

	cr_log_info("seed %u", seed);
	srandom(seed);
	cr_assert_eq(pool_init(&pool, COUNT, sizeof(struct buffer), NULL), 0);
	for (unsigned i = 0; i < 200000; i++) {
		if (random() % 100 < (i / 500 % 2 ? 60 : 40)) {
			void *got = pool_get(&pool);

			if (nr_back > 0) {
				cr_assert_eq(got, back[--nr_back], "seed %u", seed);
			} else if (nr_fresh > 0) {
				nr_fresh--;
				cr_assert_not_null(got, "seed %u", seed);
				for (unsigned h = 0; h < nr_held; h++)
					cr_assert_neq(got, held[h], "seed %u", seed);
			} else {
				empty++;
				cr_assert_null(got, "seed %u", seed);
			}
			if (got)
				held[nr_held++] = got;
		} else if (nr_held > 0) {
			unsigned h = (unsigned)random() % nr_held;

			pool_put(held[h]);
			back[nr_back++] = held[h];
			held[h] = held[--nr_held];
		}
		cr_assert_eq(pool_in_use(&pool), nr_held, "seed %u", seed);
	}
	cr_assert_eq(counter_read(&pool.empty), empty, "seed %u", seed);
	cr_assert_eq(pool.count, COUNT);
	pool_done(&pool);
}

Test(pool, rounds_buffers_up_to_cache_lines)
{
	struct pool pool;
	char *a, *b;

	cr_assert_eq(pool_init(&pool, 2, CACHE_LINE + 1, NULL), 0);
	a = pool_get(&pool);
	b = pool_get(&pool);
	cr_assert_eq(labs(a - b), 2 * CACHE_LINE);
	pool_done(&pool);
}

Test(pool, refuses_more_memory_than_there_can_be)
{
	struct pool pool = {.count = 7};

	cr_assert_eq(pool_init(&pool, 2, SIZE_MAX / 2, NULL), -ENOMEM);
	cr_assert_eq(pool_init(&pool, UINT32_MAX, (size_t)1 << 40, NULL), -ENOMEM);
	cr_assert_eq(pool_init(&pool, 1, (size_t)1 << 62, NULL), -ENOMEM);
	cr_assert_eq(pool.count, 7, "a failure wrote to the pool");
}

Test(pool, ends_a_zeroed_and_an_already_ended_one)
{
	struct pool pool = {0};

	pool_done(&pool);
	cr_assert_eq(pool_init(&pool, 2, sizeof(struct buffer), NULL), 0);
	pool_done(&pool);
	pool_done(&pool);
	pool_put(NULL);
}

static size_t resident_bytes(const struct pool *pool)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t pages = pool->memory_bytes / page, resident = 0;
	unsigned char *map = malloc(pages);

	cr_assert_eq(mincore(pool->memory, pool->memory_bytes, map), 0);
	for (size_t i = 0; i < pages; i++)
		resident += map[i] & 1;
	free(map);
	return resident * page;
}

Test(pool, touches_memory_only_as_deep_as_it_is_used)
{
	enum { COUNT = 512, ITEM = 128 * 1024 };
	struct pool pool;
	char *depth[32];

	cr_assert_eq(pool_init(&pool, COUNT, ITEM, NULL), 0);
	cr_assert_eq((uintptr_t)pool.memory % HUGE_PAGE, 0);
	cr_assert_eq(resident_bytes(&pool), 0);
	for (unsigned round = 0; round < 2 * COUNT; round++) {
		char *object = pool_get(&pool);

		memset(object + sizeof(struct pool_item), 1, ITEM - sizeof(struct pool_item));
		pool_put(object);
	}
	cr_assert_leq(resident_bytes(&pool), HUGE_PAGE);
	for (unsigned i = 0; i < ARRAY_LEN(depth); i++) {
		depth[i] = pool_get(&pool);
		memset(depth[i] + sizeof(struct pool_item), 1, ITEM - sizeof(struct pool_item));
	}
	cr_assert_geq(resident_bytes(&pool), ARRAY_LEN(depth) * ITEM, "resident_bytes() sees nothing");
	cr_assert_leq(resident_bytes(&pool), ARRAY_LEN(depth) * ITEM + HUGE_PAGE);
	pool_done(&pool);
}

/* The line "VmFlags:" of /proc/self/smaps for the mapping that begins at or holds this address. */
static void vm_flags(const void *address, char *flags, size_t len)
{
	FILE *smaps = fopen("/proc/self/smaps", "r");
	char line[512];
	bool here = false;

	cr_assert_not_null(smaps);
	flags[0] = '\0';
	while (fgets(line, sizeof(line), smaps)) {
		unsigned long from, to;

		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			here = from <= (uintptr_t)address && (uintptr_t)address < to;
		else if (here && strncmp(line, "VmFlags:", 8) == 0)
			snprintf(flags, len, "%s", line);
	}
	fclose(smaps);
}

Test(pool, stays_out_of_core_dumps)
{
	struct pool pool;
	char flags[512];

	cr_assert_eq(pool_init(&pool, 64, 128 * 1024, NULL), 0);
	vm_flags(pool.memory, flags, sizeof(flags));
	cr_assert_not_null(strstr(flags, " dd"), "flags of the mapping: %s", flags);
	pool_done(&pool);
}

#ifdef SANITIZE_ADDRESS
Test(pool, marks_what_came_back_for_address_sanitizer)
{
	struct pool pool;
	struct buffer *b;

	cr_assert_eq(pool_init(&pool, 2, sizeof(struct buffer), NULL), 0);
	b = pool_get(&pool);
	cr_assert_not(__asan_address_is_poisoned(&b->data[299]));
	pool_put(b);
	cr_assert(__asan_address_is_poisoned(&b->data[0]));
	cr_assert(__asan_address_is_poisoned(&b->data[299]));
	cr_assert_eq(pool_get(&pool), b);
	cr_assert_not(__asan_address_is_poisoned(&b->data[0]));
	pool_done(&pool);
}
#endif

struct waiter {
	struct park park;
	struct pool pool;
	_Atomic bool stop;
	uint64_t deadline_ns;
	void *got;
	pthread_t thread;
};

static void *wait_for_buffer(void *arg)
{
	struct waiter *w = arg;

	w->got = pool_wait_until(&w->pool, &w->stop, w->deadline_ns);
	return NULL;
}

/* An owner asleep over an empty pool; the buffers are the caller's. */
static void start(struct waiter *w, struct buffer **held, unsigned count)
{
	memset(w, 0, sizeof(*w));
	park_init(&w->park);
	w->deadline_ns = PARK_FOREVER;
	cr_assert_eq(pool_init(&w->pool, count, sizeof(struct buffer), &w->park), 0);
	for (unsigned i = 0; i < count; i++)
		held[i] = pool_get(&w->pool);
	cr_assert_eq(pthread_create(&w->thread, NULL, wait_for_buffer, w), 0);
	while (!ck_ec32_has_waiters(&w->park.event_count) || counter_read(&w->park.counters.parks) == 0)
		nap_ms(1);
}

Test(pool, wait_takes_a_free_buffer_at_once_even_when_stopped)
{
	struct park park;
	struct pool pool;
	_Atomic bool stop = true;

	park_init(&park);
	cr_assert_eq(pool_init(&pool, 1, sizeof(struct buffer), &park), 0);
	cr_assert_not_null(pool_wait(&pool, &stop));
	cr_assert_eq(counter_read(&park.counters.parks), 0);
	pool_done(&pool);
}

Test(pool, wait_over_an_empty_pool_returns_at_once_when_already_stopped)
{
	struct park park;
	struct pool pool;
	_Atomic bool stop = true;

	park_init(&park);
	cr_assert_eq(pool_init(&pool, 1, sizeof(struct buffer), &park), 0);
	cr_assert_not_null(pool_get(&pool));
	cr_assert_null(pool_wait(&pool, &stop));
	cr_assert_eq(counter_read(&park.counters.parks), 0);
	pool_done(&pool);
}

Test(pool, put_wakes_an_owner_that_starves)
{
	struct waiter w;
	struct buffer *held[3];

	start(&w, held, 3);
	pool_put(held[1]);
	pthread_join(w.thread, NULL);
	cr_assert_eq(w.got, held[1]);
	cr_assert_eq(pool_in_use(&w.pool), 3);
	pool_done(&w.pool);
}

Test(pool, put_wakes_a_new_owner_where_that_one_sleeps)
{
	struct park after;
	struct waiter w;
	struct buffer *held[1];

	start(&w, held, 1);
	pool_put(held[0]);
	pthread_join(w.thread, NULL);
	held[0] = w.got;

	park_init(&after);
	pool_set_park(&w.pool, &after);
	const uint32_t ticket = park_ticket(&w.park);
	cr_assert_eq(pthread_create(&w.thread, NULL, wait_for_buffer, &w), 0);
	while (!ck_ec32_has_waiters(&after.event_count))
		nap_ms(1);
	pool_put(held[0]);
	pthread_join(w.thread, NULL);
	cr_assert_eq(w.got, held[0]);
	cr_assert_eq(park_ticket(&w.park), ticket);
	pool_done(&w.pool);
}

Test(pool, put_does_not_wake_an_owner_that_has_enough)
{
	struct waiter w;
	struct buffer *held[2];
	uint32_t ticket;

	start(&w, held, 2);
	pool_put(held[0]);
	pthread_join(w.thread, NULL);
	ticket = park_ticket(&w.park);
	pool_put(held[1]);
	cr_assert_eq(park_ticket(&w.park), ticket);
	pool_done(&w.pool);
}

Test(pool, wake_without_a_buffer_does_not_end_the_wait)
{
	struct waiter w;
	struct buffer *held[1];

	start(&w, held, 1);
	for (unsigned i = 0; i < 20; i++) {
		park_wake(&w.park);
		nap_ms(1);
	}
	pool_put(held[0]);
	pthread_join(w.thread, NULL);
	cr_assert_eq(w.got, held[0]);
	pool_done(&w.pool);
}

Test(pool, stop_and_wake_end_the_wait_without_a_buffer)
{
	struct waiter w;
	struct buffer *held[1];

	start(&w, held, 1);
	w.stop = true;
	park_wake(&w.park);
	pthread_join(w.thread, NULL);
	cr_assert_null(w.got);
	pool_done(&w.pool);
}

Test(pool, wait_until_gives_up_at_its_deadline)
{
	struct park park;
	struct pool pool;
	_Atomic bool stop = false;
	uint64_t deadline_ns;

	park_init(&park);
	cr_assert_eq(pool_init(&pool, 1, sizeof(struct buffer), &park), 0);
	cr_assert_not_null(pool_get(&pool));
	deadline_ns = park_clock_ns() + 10 * NS_PER_MS;
	cr_assert_null(pool_wait_until(&pool, &stop, deadline_ns));
	cr_assert_geq(park_clock_ns(), deadline_ns);
	cr_assert_not(pool.starved, "puts would go on waking");
	pool_done(&pool);
}
