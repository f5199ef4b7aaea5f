/* Rings, pools and wake-ups: what a train pays to change threads. */
#include "perf/micro.h"

#include <stdlib.h>

#include "ring/baton.h"
#include "ring/channel.h"
#include "ring/park.h"
#include "ring/pool.h"

#define ITEMS 64
#define ITEM_BYTES 256

struct rings {
	struct park park;
	struct channel ch;
	struct spsc_tx spsc_tx;
	struct spsc_rx spsc_rx;
	struct mpsc_tx mpsc_tx;
	struct mpsc_rx mpsc_rx;
	struct pool pool;
	struct baton baton;
	void *taken[ITEMS];
	uint8_t items[ITEMS];
};

static void *setup_spsc(const struct stage *s, const char **why)
{
	struct rings *r = micro_alloc(sizeof(*r));

	park_init(&r->park);
	micro_require(!spsc_init(&r->ch, CHANNEL_SLOTS, &r->park, &r->spsc_tx, &r->spsc_rx));
	return r;
}

static void *setup_mpsc(const struct stage *s, const char **why)
{
	struct rings *r = micro_alloc(sizeof(*r));

	park_init(&r->park);
	micro_require(!mpsc_init(&r->ch, CHANNEL_SLOTS, &r->park, &r->mpsc_tx, &r->mpsc_rx));
	return r;
}

static void *setup_pool(const struct stage *s, const char **why)
{
	struct rings *r = micro_alloc(sizeof(*r));

	park_init(&r->park);
	baton_init(&r->baton, &r->park);
	micro_require(!pool_init(&r->pool, ITEMS, ITEM_BYTES, &r->park));
	return r;
}

static void done(void *ctx)
{
	struct rings *r = ctx;

	channel_done(&r->ch);
	pool_done(&r->pool);
	free(r);
}

static unsigned turn_spsc(void *ctx)
{
	struct rings *r = ctx;
	unsigned good = 0;

	for (unsigned i = 0; i < ITEMS; i++)
		good += spsc_push(r->spsc_tx, &r->items[i]);
	for (unsigned i = 0; i < ITEMS; i++)
		good -= spsc_pop(r->spsc_rx) != &r->items[i];
	return good;
}

static void check_spsc(void *ctx)
{
	struct rings *r = ctx;

	for (unsigned i = 0; i < CHANNEL_SLOTS; i++)
		micro_require(spsc_push(r->spsc_tx, &r->items[i % ITEMS]));
	micro_require(!spsc_push(r->spsc_tx, r->items));
	for (unsigned i = 0; i < CHANNEL_SLOTS; i++)
		micro_require(spsc_pop(r->spsc_rx) == &r->items[i % ITEMS]);
	micro_require(!spsc_pop(r->spsc_rx));
}

static unsigned turn_mpsc(void *ctx)
{
	struct rings *r = ctx;
	unsigned good = 0;

	for (unsigned i = 0; i < ITEMS; i++)
		good += mpsc_push(r->mpsc_tx, &r->items[i]);
	for (unsigned i = 0; i < ITEMS; i++)
		good -= mpsc_pop(r->mpsc_rx) != &r->items[i];
	return good;
}

static void check_mpsc(void *ctx)
{
	struct rings *r = ctx;

	for (unsigned i = 0; i < CHANNEL_SLOTS; i++)
		micro_require(mpsc_push(r->mpsc_tx, &r->items[i % ITEMS]));
	micro_require(!mpsc_push(r->mpsc_tx, r->items));
	for (unsigned i = 0; i < CHANNEL_SLOTS; i++)
		micro_require(mpsc_pop(r->mpsc_rx) == &r->items[i % ITEMS]);
	micro_require(!mpsc_pop(r->mpsc_rx));
}

static unsigned turn_pool(void *ctx)
{
	struct rings *r = ctx;
	unsigned good = 0;

	for (unsigned i = 0; i < ITEMS; i++) {
		void *item = pool_get(&r->pool);

		good += item != NULL;
		pool_put(item);
	}
	return good;
}

/* All out before the first comes back, as in a loaded pipeline. */
static unsigned turn_pool_deep(void *ctx)
{
	struct rings *r = ctx;
	unsigned good = 0;

	for (unsigned i = 0; i < ITEMS; i++) {
		r->taken[i] = pool_get(&r->pool);
		good += r->taken[i] != NULL;
	}
	for (unsigned i = 0; i < ITEMS; i++)
		pool_put(r->taken[i]);
	return good;
}

static void check_pool(void *ctx)
{
	struct rings *r = ctx;

	for (unsigned i = 0; i < ITEMS; i++) {
		r->taken[i] = pool_get(&r->pool);
		micro_require(r->taken[i] && (uintptr_t)r->taken[i] % CACHE_LINE == 0);
		for (unsigned j = 0; j < i; j++)
			micro_require(r->taken[i] != r->taken[j]);
	}
	micro_require(!pool_get(&r->pool) && pool_in_use(&r->pool) == ITEMS);
	for (unsigned i = 0; i < ITEMS; i++)
		pool_put(r->taken[i]);
	micro_require(pool_in_use(&r->pool) == 0 && pool_get(&r->pool) == r->taken[ITEMS - 1]);
	pool_put(r->taken[ITEMS - 1]);
}

static unsigned turn_wake(void *ctx)
{
	struct rings *r = ctx;

	for (unsigned i = 0; i < ITEMS; i++)
		park_wake(&r->park);
	return ITEMS;
}

static void check_wake(void *ctx)
{
	struct rings *r = ctx;
	const uint32_t ticket = park_ticket(&r->park);

	park_wake(&r->park);
	micro_require(park_ticket(&r->park) != ticket);
	micro_require(park_wait(&r->park, ticket, PARK_FOREVER));
	micro_require(atomic_load(&r->park.counters.wakes) == 0); /* nobody slept */
}

static unsigned turn_baton(void *ctx)
{
	struct rings *r = ctx;
	unsigned good = 0;

	for (unsigned i = 0; i < ITEMS; i++) {
		good += baton_try(&r->baton);
		baton_pass(&r->baton);
	}
	return good;
}

static void check_baton(void *ctx)
{
	struct rings *r = ctx;
	const uint32_t ticket = park_ticket(&r->park);

	micro_require(baton_try(&r->baton) && !baton_try(&r->baton) && !baton_claim(&r->baton));
	baton_pass(&r->baton);
	micro_require(park_ticket(&r->park) != ticket);
	micro_require(baton_claim(&r->baton));
	baton_pass(&r->baton);
}

void micro_ring_stages(void)
{
	static const struct stage_ops spsc = {setup_spsc, check_spsc, NULL, turn_spsc, done};
	static const struct stage_ops mpsc = {setup_mpsc, check_mpsc, NULL, turn_mpsc, done};
	static const struct stage_ops pool = {setup_pool, check_pool, NULL, turn_pool, done};
	static const struct stage_ops pool_deep = {setup_pool, check_pool, NULL, turn_pool_deep, done};
	static const struct stage_ops wake = {setup_pool, check_wake, NULL, turn_wake, done};
	static const struct stage_ops baton = {setup_pool, check_baton, NULL, turn_baton, done};
	const struct stage item = {.unit = "item", .units = ITEMS, .hot = true};
	struct stage s = item;

	s.ops = &spsc;
	micro_add(&s, "ring/spsc");
	s.ops = &mpsc;
	micro_add(&s, "ring/mpsc");
	s.ops = &pool;
	micro_add(&s, "ring/pool");
	s.ops = &pool_deep;
	micro_add(&s, "ring/pool-deep");
	s.ops = &wake;
	micro_add(&s, "ring/wake-awake");
	s.ops = &baton;
	micro_add(&s, "ring/baton");
}
