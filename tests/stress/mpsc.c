/*
 * Four producers into one MPSC channel: each producer's items arrive in its order, none is lost and none
 * comes twice, and what the producer wrote into an item is what the consumer reads. Run with a channel so
 * short that it is mostly full and with one so long that it never is. A full channel gives the item back to
 * the producer, who tries again.
 */
#include <sched.h>

#include "ring/channel.h"
#include "ring/pool.h"
#include "tests/stress/stress.h"

#define PRODUCERS 4
#define ITEMS 64 /* of each producer */

struct message {
	struct pool_item item;
	unsigned producer;
	uint64_t number;
	uint64_t payload[6];
};

struct producer {
	CACHE_ALIGNED struct mpsc_tx tx;
	unsigned id;
	uint64_t rounds;
	struct park park;
	struct pool pool;
	uint64_t refused;
};

static const _Atomic bool never_stop;

static void *produce(void *arg)
{
	struct producer *self = arg;

	for (uint64_t i = 0; i < self->rounds; i++) {
		struct message *m = pool_wait(&self->pool, &never_stop);

		m->producer = self->id;
		m->number = i;
		for (unsigned p = 0; p < ARRAY_LEN(m->payload); p++)
			m->payload[p] = i * (p + 1);
		while (!mpsc_push(self->tx, m)) {
			self->refused++;
			sched_yield();
		}
	}
	return NULL;
}

static void run(unsigned capacity, uint64_t rounds)
{
	static struct producer producer[PRODUCERS];
	static counter_t received;
	struct park park;
	struct channel ch;
	struct mpsc_tx tx;
	struct mpsc_rx rx;
	pthread_t thread[PRODUCERS];
	uint64_t next[PRODUCERS] = {0};
	uint64_t refused = 0, total = rounds / PRODUCERS * PRODUCERS;
	uint64_t began_ns = park_clock_ns();

	received = 0;
	park_init(&park);
	REQUIRE(mpsc_init(&ch, capacity, &park, &tx, &rx) == 0, "no channel");
	for (unsigned i = 0; i < PRODUCERS; i++) {
		producer[i] = (struct producer){.tx = tx, .id = i, .rounds = rounds / PRODUCERS};
		park_init(&producer[i].park);
		REQUIRE(pool_init(&producer[i].pool, ITEMS, sizeof(struct message), &producer[i].park) == 0,
			"no pool");
	}
	stress_watch("mpsc", &received);
	for (unsigned i = 0; i < PRODUCERS; i++)
		thread[i] = stress_start(produce, &producer[i]);

	while (counter_read(&received) < total) {
		uint32_t ticket = park_ticket(&park);
		struct message *m = mpsc_pop(rx);

		if (m == NULL) {
			park_wait(&park, ticket, PARK_FOREVER);
			continue;
		}
		REQUIRE(m->producer < PRODUCERS, "producer %u", m->producer);
		REQUIRE(m->number == next[m->producer], "producer %u: got item %llu, expected %llu",
			m->producer, (unsigned long long)m->number, (unsigned long long)next[m->producer]);
		for (unsigned p = 0; p < ARRAY_LEN(m->payload); p++)
			REQUIRE(m->payload[p] == m->number * (p + 1), "item %llu is damaged",
				(unsigned long long)m->number);
		next[m->producer]++;
		pool_put(m);
		counter_add(&received, 1);
	}
	for (unsigned i = 0; i < PRODUCERS; i++)
		stress_join(thread[i]);
	stress_unwatch();
	REQUIRE(mpsc_pop(rx) == NULL, "an item more than was sent");
	REQUIRE(counter_read(&ch.counters.high_water) <= capacity + PRODUCERS - 1,
		"%llu items in a channel of %u", (unsigned long long)counter_read(&ch.counters.high_water),
		capacity);
	for (unsigned i = 0; i < PRODUCERS; i++) {
		REQUIRE(pool_in_use(&producer[i].pool) == 0, "producer %u leaks", i);
		refused += producer[i].refused;
		pool_done(&producer[i].pool);
	}
	printf("mpsc: capacity %u: %llu items of %d producers in order, longest %llu, %llu refused, %.1f s\n",
		capacity, (unsigned long long)total, PRODUCERS,
		(unsigned long long)counter_read(&ch.counters.high_water), (unsigned long long)refused,
		(double)(park_clock_ns() - began_ns) / 1e9);
	channel_done(&ch);
}

int main(void)
{
	uint64_t rounds = stress_rounds(4000000);

	run(8, MAX(rounds / 4, PRODUCERS));
	run(CHANNEL_SLOTS, MAX(rounds, PRODUCERS));
	return 0;
}
