/*
 * One owner takes buffers from a pool that is almost always empty, three other threads give them back. No
 * buffer is in two hands at once, none is lost, and the owner never sleeps on while a buffer is there. At the
 * end of each run the givers hold everything back and the owner must leave pool_wait() on the stop flag
 * alone.
 */
#include "ring/channel.h"
#include "ring/pool.h"
#include "tests/stress/stress.h"

#define GIVERS 3
#define BUFFERS 4

enum state { FREE = 0x0f0f, TAKEN = 0x7a7a };

struct buffer {
	struct pool_item item;
	uint64_t round;
	enum state state; /* plain on purpose: the hand-over must order it */
	bool keep;        /* tells the giver not to give it back */
	uint8_t body[200];
};

struct giver {
	struct park park;
	struct channel channel;
	struct spsc_tx tx;
	struct spsc_rx rx;
	uint64_t expected; /* rounds of its buffers only grow */
	struct buffer *kept[BUFFERS];
	unsigned nr_kept;
	_Atomic bool *stop;
};

struct owner {
	struct park park;
	struct pool pool;
	struct giver giver[GIVERS];
	uint64_t rounds;
	_Atomic bool stop;
	_Atomic bool waits; /* for the stop flag, with all buffers out */
	counter_t taken;
};

static void *give_back(void *arg)
{
	struct giver *self = arg;

	for (;;) {
		uint32_t ticket = park_ticket(&self->park);
		/* Before the look into the queue: it comes after the last push. */
		bool stop = atomic_load_explicit(self->stop, memory_order_acquire);
		struct buffer *b = spsc_pop(self->rx);

		if (b == NULL) {
			if (stop)
				return NULL;
			park_wait(&self->park, ticket, PARK_FOREVER);
			continue;
		}
		REQUIRE(b->state == TAKEN, "a giver got a buffer that is not out");
		REQUIRE(b->round >= self->expected, "buffers came out of order");
		for (unsigned i = 0; i < sizeof(b->body); i++)
			REQUIRE(b->body[i] == (uint8_t)b->round, "the buffer of round %llu is in two hands",
				(unsigned long long)b->round);
		self->expected = b->round + 1;
		if (b->keep) {
			self->kept[self->nr_kept++] = b;
			continue;
		}
		b->state = FREE;
		pool_put(b);
	}
}

static void send(struct owner *self, struct buffer *b, uint64_t round, unsigned giver, bool keep)
{
	REQUIRE(b != NULL, "pool_wait() gave up although nobody said stop");
	REQUIRE(b->state == FREE, "a buffer was handed out twice");
	b->round = round;
	b->state = TAKEN;
	b->keep = keep;
	memset(b->body, (int)(uint8_t)round, sizeof(b->body));
	REQUIRE(spsc_push(self->giver[giver].tx, b), "more buffers than there are");
	counter_add(&self->taken, 1);
}

/* Fresh memory carries no state. */
static void mark_free(struct pool *pool)
{
	struct buffer *all[BUFFERS];

	for (unsigned i = 0; i < BUFFERS; i++) {
		all[i] = pool_get(pool);
		all[i]->state = FREE;
	}
	for (unsigned i = 0; i < BUFFERS; i++)
		pool_put(all[i]);
}

static void *take(void *arg)
{
	struct owner *self = arg;
	uint64_t seed = 88172645463325252;
	uint64_t round = 0;

	for (; round < self->rounds; round++)
		send(self, pool_wait(&self->pool, &self->stop), round, stress_random(&seed) % GIVERS, false);
	for (unsigned i = 0; i < BUFFERS; i++, round++)
		send(self, pool_wait(&self->pool, &self->stop), round, i % GIVERS, true);
	atomic_store_explicit(&self->waits, true, memory_order_release);
	REQUIRE(pool_wait(&self->pool, &self->stop) == NULL, "a buffer from nowhere");
	return NULL;
}

static void stop(struct owner *owner, pthread_t owner_thread)
{
	while (!atomic_load_explicit(&owner->waits, memory_order_acquire))
		ck_pr_stall();
	atomic_store_explicit(&owner->stop, true, memory_order_release);
	park_wake(&owner->park);
	stress_join(owner_thread);
}

/* Returns how often the owner slept. */
static uint64_t run(struct owner *owner, uint64_t rounds)
{
	pthread_t owner_thread, giver_thread[GIVERS];
	unsigned kept = 0;

	park_init(&owner->park);
	REQUIRE(pool_init(&owner->pool, BUFFERS, sizeof(struct buffer), &owner->park) == 0, "no pool");
	mark_free(&owner->pool);
	owner->rounds = rounds;
	owner->stop = false;
	owner->waits = false;
	for (unsigned i = 0; i < GIVERS; i++) {
		struct giver *g = &owner->giver[i];

		*g = (struct giver){.stop = &owner->stop};
		park_init(&g->park);
		REQUIRE(spsc_init(&g->channel, BUFFERS, &g->park, &g->tx, &g->rx) == 0, "no channel");
		giver_thread[i] = stress_start(give_back, g);
	}
	owner_thread = stress_start(take, owner);
	stop(owner, owner_thread);
	for (unsigned i = 0; i < GIVERS; i++) {
		struct giver *g = &owner->giver[i];

		park_wake(&g->park);
		stress_join(giver_thread[i]);
		kept += g->nr_kept;
		REQUIRE(pool_in_use(&owner->pool) >= kept, "more buffers kept than out");
		channel_done(&g->channel);
	}
	REQUIRE(kept == BUFFERS && pool_in_use(&owner->pool) == BUFFERS, "%u buffers kept, %u in use", kept,
		pool_in_use(&owner->pool));
	for (unsigned i = 0; i < GIVERS; i++)
		for (unsigned k = 0; k < owner->giver[i].nr_kept; k++)
			pool_put(owner->giver[i].kept[k]);
	REQUIRE(pool_in_use(&owner->pool) == 0, "buffers leak");
	pool_done(&owner->pool);
	return counter_read(&owner->park.counters.parks);
}

int main(void)
{
	static struct owner owner;
	uint64_t rounds = stress_rounds(400000), stops = MAX(rounds / 1000, 1);
	uint64_t began_ns = park_clock_ns();
	uint64_t parks;

	stress_watch("pool", &owner.taken);
	parks = run(&owner, rounds);
	for (uint64_t i = 0; i < stops; i++)
		parks += run(&owner, BUFFERS);
	stress_unwatch();
	printf("pool: %llu buffers taken, %llu stops, %llu sleeps of the owner, none lost or doubled, %.1f "
	       "s\n",
		(unsigned long long)counter_read(&owner.taken), (unsigned long long)stops,
		(unsigned long long)parks, (double)(park_clock_ns() - began_ns) / 1e9);
	return 0;
}
