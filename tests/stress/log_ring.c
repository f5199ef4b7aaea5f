/*
 * Four threads log into one ring, faster than its writer takes lines out: the lines of each come out in its order,
 * as they were filled in, and those written and those lost add up.
 */
#include <sched.h>
#include <stdio.h>

#include "core/base/log_ring.h"
#include "tests/stress/stress.h"

#define PRODUCERS 4
#define BURST 300 /* four of them overflow the ring now and then */

static struct log_ring ring;
static _Atomic unsigned producing;

struct producer {
	CACHE_ALIGNED uint8_t id;
	uint64_t rounds;
};

static void *produce(void *arg)
{
	const struct producer *self = arg;

	for (uint64_t i = 0; i < self->rounds; i++) {
		struct log_line *line = log_ring_reserve(&ring);

		if (i % BURST == 0)
			sched_yield();
		if (!line)
			continue;
		line->component = self->id;
		line->realtime_ns = i;
		snprintf(line->message, sizeof(line->message), "%u %llu", self->id, (unsigned long long)i);
		log_ring_commit(line);
	}
	atomic_fetch_sub(&producing, 1);
	return NULL;
}

int main(void)
{
	static struct producer producer[PRODUCERS];
	static counter_t written;
	const uint64_t rounds = stress_rounds(300000);
	pthread_t thread[PRODUCERS];
	uint64_t next[PRODUCERS] = {0}, lost = 0;

	stress_watch("written", &written);
	atomic_store(&producing, PRODUCERS);
	for (unsigned i = 0; i < PRODUCERS; i++) {
		producer[i] = (struct producer){.id = (uint8_t)i, .rounds = rounds};
		thread[i] = stress_start(produce, &producer[i]);
	}
	for (;;) {
		/* Before the last look. */
		const bool last = !atomic_load(&producing);
		const struct log_line *line;

		while ((line = log_ring_peek(&ring))) {
			char message[32];

			REQUIRE(line->component < PRODUCERS, "producer %u", line->component);
			snprintf(message, sizeof(message), "%u %llu", line->component,
				(unsigned long long)line->realtime_ns);
			REQUIRE(strcmp(line->message, message) == 0, "%s instead of %s", line->message,
				message);
			REQUIRE(line->realtime_ns >= next[line->component], "%s, out of order", message);
			next[line->component] = line->realtime_ns + 1;
			lost += line->lost;
			counter_add(&written, 1);
			log_ring_release(&ring);
		}
		lost += log_ring_take_lost(&ring);
		if (last)
			break;
		sched_yield();
	}
	for (unsigned i = 0; i < PRODUCERS; i++)
		stress_join(thread[i]);
	stress_unwatch();
	REQUIRE(counter_read(&written) + lost == PRODUCERS * rounds, "%llu written and %llu lost of %llu",
		(unsigned long long)counter_read(&written), (unsigned long long)lost,
		(unsigned long long)(PRODUCERS * rounds));
	printf("log ring: %llu lines written, %llu lost\n", (unsigned long long)counter_read(&written),
		(unsigned long long)lost);
	return 0;
}
