/*
 * One 1000-slot channel between two threads. First it is filled while nobody takes: it must hold exactly
 * 1000. Then items run through it, more of them in flight than it has slots, with pauses on either side so
 * that it runs full and empty: order, contents and the limit of 1000 are checked all the time.
 */
#include <sched.h>

#include "ring/channel.h"
#include "ring/pool.h"
#include "tests/stress/stress.h"

#define ITEMS (CHANNEL_SLOTS + 200)

struct message {
	struct pool_item item;
	uint64_t number;
	uint64_t payload[6];
};

struct producer {
	struct spsc_tx tx;
	struct pool pool;
	struct park park;
	uint64_t rounds;
	uint64_t sent;
	uint64_t refused;
};

static const _Atomic bool never_stop;

/* Now and then, let the other side get ahead. */
static void pause_at_times(uint64_t *seed)
{
	if (stress_random(seed) % 4096 == 0)
		for (unsigned i = 0; i < 20; i++)
			sched_yield();
}

static struct message *next_message(struct producer *self)
{
	struct message *m = pool_wait(&self->pool, &never_stop);

	m->number = self->sent;
	for (unsigned p = 0; p < ARRAY_LEN(m->payload); p++)
		m->payload[p] = self->sent ^ p;
	return m;
}

static void *produce(void *arg)
{
	struct producer *self = arg;
	uint64_t seed = 88172645463325252;

	while (self->sent < self->rounds) {
		struct message *m = next_message(self);

		while (!spsc_push(self->tx, m)) {
			self->refused++;
			sched_yield();
		}
		self->sent++;
		pause_at_times(&seed);
	}
	return NULL;
}

static void fill(struct producer *self, struct channel *ch)
{
	struct message *m;

	for (unsigned i = 0; i < CHANNEL_SLOTS; i++) {
		REQUIRE(spsc_push(self->tx, next_message(self)), "refused item %u of %u", i, CHANNEL_SLOTS);
		self->sent++;
	}
	m = next_message(self);
	REQUIRE(!spsc_push(self->tx, m), "took more than %u", CHANNEL_SLOTS);
	pool_put(m);
	REQUIRE(channel_len(ch) == CHANNEL_SLOTS, "length %u", channel_len(ch));
}

int main(void)
{
	static struct producer producer;
	static counter_t received;
	struct park park;
	struct channel ch;
	struct spsc_rx rx;
	pthread_t thread;
	uint64_t seed = 2463534242;
	uint64_t began_ns = park_clock_ns();

	park_init(&park);
	park_init(&producer.park);
	producer.rounds = MAX(stress_rounds(5000000), CHANNEL_SLOTS);
	REQUIRE(spsc_init(&ch, CHANNEL_SLOTS, &park, &producer.tx, &rx) == 0, "no channel");
	REQUIRE(pool_init(&producer.pool, ITEMS, sizeof(struct message), &producer.park) == 0, "no pool");
	fill(&producer, &ch);
	stress_watch("channel", &received);
	thread = stress_start(produce, &producer);

	while (counter_read(&received) < producer.rounds) {
		uint32_t ticket = park_ticket(&park);
		struct message *m = spsc_pop(rx);

		if (m == NULL) {
			park_wait(&park, ticket, PARK_FOREVER);
			continue;
		}
		REQUIRE(m->number == counter_read(&received), "got item %llu, expected %llu",
			(unsigned long long)m->number, (unsigned long long)counter_read(&received));
		for (unsigned p = 0; p < ARRAY_LEN(m->payload); p++)
			REQUIRE(m->payload[p] == (m->number ^ p), "item %llu is damaged",
				(unsigned long long)m->number);
		pool_put(m);
		counter_add(&received, 1);
		pause_at_times(&seed);
	}
	stress_join(thread);
	stress_unwatch();
	REQUIRE(spsc_pop(rx) == NULL, "an item more than was sent");
	REQUIRE(counter_read(&ch.counters.high_water) == CHANNEL_SLOTS, "held %llu",
		(unsigned long long)counter_read(&ch.counters.high_water));
	REQUIRE(pool_in_use(&producer.pool) == 0, "items leak");
	printf("channel: %llu items through %d slots in order, %llu refused, %llu sleeps, %.1f s\n",
		(unsigned long long)producer.rounds, CHANNEL_SLOTS, (unsigned long long)producer.refused,
		(unsigned long long)counter_read(&park.counters.parks),
		(double)(park_clock_ns() - began_ns) / 1e9);
	pool_done(&producer.pool);
	channel_done(&ch);
	return 0;
}
