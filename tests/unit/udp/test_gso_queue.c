#include "udp/gso_queue.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "support.h"

/* A queue that writes down what it delivers. */
#define DELIVERIES_MAX 8192
#define CONNECTIONS 80

struct delivery {
	unsigned connection;
	unsigned nr;
	uint8_t tos;
	uint32_t id[GSO_SEGMENTS_MAX], len[GSO_SEGMENTS_MAX];
};

static struct pool pool;
static struct gso_queue queue;
static struct delivery *delivery;
static unsigned nr_deliveries;
static struct endpoint connection[CONNECTIONS];
static uint8_t tos; /* of what enqueue() adds next */
static unsigned waits, held_while_waiting;

static unsigned connection_of(const struct udp_batch *batch)
{
	for (unsigned i = 0; i < CONNECTIONS; i++)
		if (endpoint_equal(&connection[i], &batch->endpoint))
			return i;
	cr_assert_fail("a batch of no connection");
	return 0;
}

static void deliver(void *arg, struct udp_batch *batch)
{
	struct delivery *d = &delivery[nr_deliveries++];
	uint32_t offset = 0;

	cr_assert_leq(nr_deliveries, DELIVERIES_MAX);
	cr_assert_eq(arg, &queue);
	cr_assert(batch->sealed);
	cr_assert_null(batch->next);
	cr_assert(batch->nr >= 1 && batch->nr <= GSO_SEGMENTS_MAX);
	cr_assert(batch->len >= 1 && batch->len <= (batch->nr > 1 ? GSO_BYTES_MAX : GSO_DATAGRAM_MAX));
	d->connection = connection_of(batch);
	d->nr = batch->nr;
	d->tos = batch->tos;
	for (unsigned i = 0; i < batch->nr; i++) {
		uint32_t len = MIN(batch->segment_len, batch->len - offset);

		/* All of the segment length but the last, which is not longer. */
		cr_assert(len == batch->segment_len || i == batch->nr - 1u);
		d->len[i] = len;
		d->id[i] = datagram_check(batch->data + offset, len);
		offset += len;
	}
	cr_assert_eq(offset, batch->len);
	pool_put(batch);
}

static struct udp_batch *wait_in_vain(void *arg)
{
	waits++;
	return NULL;
}

/* Everything has been delivered by now, and deliver() gave it back. */
static struct udp_batch *wait_for_batch(void *arg)
{
	waits++;
	held_while_waiting += queue.first != NULL;
	return pool_get(&pool);
}

static void setup_pool(unsigned batches)
{
	cr_assert_eq(pool_init(&pool, batches, sizeof(struct udp_batch), NULL), 0);
	delivery = calloc(DELIVERIES_MAX, sizeof(*delivery));
	cr_assert_not_null(delivery);
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		char text[32];

		snprintf(text, sizeof(text), i % 2 ? "[2001:db8::%u]:51820" : "192.0.2.%u:51820", 1 + i / 2);
		connection[i] = endpoint_of(text);
	}
	tos = 0;
	gso_queue_init(&queue, &pool, deliver, wait_for_batch, &queue);
}

static void setup(void)
{
	setup_pool(256);
}

static void teardown(void)
{
	cr_assert_eq(pool_in_use(&pool), 0, "%u batches leaked", pool_in_use(&pool));
	pool_done(&pool);
	free(delivery);
}

TestSuite(gso_queue, .init = setup, .fini = teardown);

static void enqueue(unsigned conn, uint32_t len, uint32_t id)
{
	uint8_t *slot = gso_queue_slot(&queue, &connection[conn], tos, len);

	cr_assert_not_null(slot);
	datagram_fill(slot, len, id);
}

/* Datagrams of the deliveries of one connection, as text: "(1228 834)(1031)". */
static const char *shape(unsigned conn)
{
	static char text[4096];
	size_t at = 0;

	text[0] = '\0';
	for (unsigned i = 0; i < nr_deliveries; i++) {
		if (delivery[i].connection != conn)
			continue;
		for (unsigned k = 0; k < delivery[i].nr; k++)
			at += (size_t)snprintf(
				text + at, sizeof(text) - at, "%s%u", k ? " " : "(", delivery[i].len[k]);
		at += (size_t)snprintf(text + at, sizeof(text) - at, ")");
	}
	return text;
}

static const uint32_t mixed_sizes[] = {1228, 834, 1031, 1228, 834, 1228, 1228, 637, 1228, 1228};
#define MIXED_SHAPE "(1228 834)(1031)(1228 834)(1228 1228 637)(1228 1228)"

Test(gso_queue, batches_mixed_sizes_in_order)
{
	for (unsigned i = 0; i < ARRAY_LEN(mixed_sizes); i++)
		enqueue(0, mixed_sizes[i], i);
	gso_queue_flush(&queue);
	cr_assert_str_eq(shape(0), MIXED_SHAPE);
}

Test(gso_queue, batches_interleaved_connections_as_if_alone)
{
	/* Early delivery may close a batch that stands between; without it the shape of each is exact. */
	queue.flush_threshold = 0;
	for (unsigned i = 0; i < ARRAY_LEN(mixed_sizes); i++) {
		enqueue(0, mixed_sizes[i], i);
		enqueue(1, mixed_sizes[i], 100 + i);
		enqueue(2, mixed_sizes[i], 200 + i);
	}
	gso_queue_flush(&queue);
	cr_assert_str_eq(shape(0), MIXED_SHAPE);
	cr_assert_str_eq(shape(1), MIXED_SHAPE);
	cr_assert_str_eq(shape(2), MIXED_SHAPE);
}

Test(gso_queue, batches_bursts_of_two_connections_as_if_alone)
{
	queue.flush_threshold = 0;
	for (unsigned i = 0; i < ARRAY_LEN(mixed_sizes); i += 5)
		for (unsigned conn = 0; conn < 2; conn++)
			for (unsigned k = i; k < i + 5; k++)
				enqueue(conn, mixed_sizes[k], k);
	gso_queue_flush(&queue);
	cr_assert_str_eq(shape(0), MIXED_SHAPE);
	cr_assert_str_eq(shape(1), MIXED_SHAPE);
}

Test(gso_queue, a_change_of_traffic_class_seals_and_keeps_the_order)
{
	/* A router on the way here marks the second datagram of a flow. */
	static const uint8_t marks[] = {2, 3, 2, 2, 3, 3};

	for (unsigned i = 0; i < ARRAY_LEN(marks); i++) {
		tos = marks[i];
		enqueue(0, 1000, i);
	}
	gso_queue_flush(&queue);
	cr_assert_str_eq(shape(0), "(1000)(1000)(1000 1000)(1000 1000)");
	for (unsigned i = 0, id = 0; i < nr_deliveries; i++)
		for (unsigned k = 0; k < delivery[i].nr; k++, id++) {
			cr_assert_eq(delivery[i].id[k], id);
			cr_assert_eq(delivery[i].tos, marks[id]);
		}
}

Test(gso_queue, separates_source_pins)
{
	struct endpoint pinned = connection[0];

	pinned.from.v4.s_addr = htonl(INADDR_LOOPBACK);
	connection[40] = pinned;
	enqueue(0, 100, 1);
	enqueue(40, 100, 2);
	gso_queue_flush(&queue);
	cr_assert_eq(nr_deliveries, 2);
}

Test(gso_queue, keeps_to_64_segments)
{
	for (unsigned i = 0; i < 130; i++)
		enqueue(0, 50, i);
	gso_queue_flush(&queue);
	cr_assert_eq(nr_deliveries, 3);
	cr_assert_eq(delivery[0].nr, 64);
	cr_assert_eq(delivery[1].nr, 64);
	cr_assert_eq(delivery[2].nr, 2);
}

Test(gso_queue, keeps_to_the_bytes_of_one_datagram)
{
	for (unsigned i = 0; i < 46; i++)
		enqueue(0, 1452, i);
	/* A shorter one that still fits seals; one that does not fit opens the next. */
	for (unsigned i = 0; i < 45; i++)
		enqueue(2, 1452, i);
	enqueue(2, GSO_BYTES_MAX - 45 * 1452, 45);
	enqueue(2, 4, 46);
	gso_queue_flush(&queue);
	cr_assert_eq(nr_deliveries, 4);
	cr_assert_eq(delivery[0].nr, 45);
	cr_assert_eq(delivery[1].nr, 1);
	cr_assert_eq(delivery[2].nr, 46);
	cr_assert_eq(delivery[3].nr, 1);
}

Test(gso_queue, carries_the_longest_datagram_alone)
{
	enqueue(0, GSO_DATAGRAM_MAX, 1);
	enqueue(0, 4, 2);
	gso_queue_flush(&queue);
	cr_assert_eq(nr_deliveries, 2);
	cr_assert_eq(delivery[0].len[0], GSO_DATAGRAM_MAX);
}

Test(gso_queue, delivers_nothing_before_threshold_or_flush)
{
	queue.flush_threshold = 4;
	for (unsigned i = 0; i < 3 * 64; i++)
		enqueue(0, 100, i);
	enqueue(0, 100, 1000);
	cr_assert_eq(nr_deliveries, 0);
	gso_queue_flush(&queue);
	cr_assert_eq(nr_deliveries, 4);
}

Test(gso_queue, delivers_sealed_prefix_at_threshold)
{
	queue.flush_threshold = 2;
	for (unsigned i = 0; i < 2 * 64; i++)
		enqueue(0, 100, i);
	/* The last slot may still be being filled. */
	cr_assert_eq(nr_deliveries, 0);
	enqueue(0, 100, 1000);
	cr_assert_eq(nr_deliveries, 2);
	gso_queue_flush(&queue);
	cr_assert_eq(nr_deliveries, 3);
}

Test(gso_queue, counts_to_the_threshold_anew_after_each_delivery)
{
	queue.flush_threshold = 2;
	/* One sealed and flushed; then one more sealed is not two. */
	for (unsigned round = 0; round < 2; round++) {
		enqueue(0, 100, 0);
		enqueue(0, 50, 1);
		if (!round)
			gso_queue_flush(&queue);
	}
	enqueue(0, 50, 2);
	cr_assert_eq(nr_deliveries, 1);
	/* Two: delivered at the next call. After that, one more sealed is not two either. */
	enqueue(0, 40, 3);
	enqueue(0, 50, 4);
	cr_assert_eq(nr_deliveries, 3);
	enqueue(0, 40, 5);
	enqueue(0, 40, 6);
	cr_assert_eq(nr_deliveries, 3);
	gso_queue_flush(&queue);
	cr_assert_eq(nr_deliveries, 5);
}

Test(gso_queue, closes_an_open_batch_that_leaves_with_the_prefix)
{
	queue.flush_threshold = 1;
	enqueue(0, 100, 0);
	enqueue(1, 100, 10);
	enqueue(1, 50, 11); /* seals: delivers connection 0's too at the next call */
	enqueue(0, 100, 1);
	cr_assert_eq(nr_deliveries, 2);
	gso_queue_flush(&queue);
	cr_assert_str_eq(shape(0), "(100)(100)");
	cr_assert_str_eq(shape(1), "(100 50)");
}

Test(gso_queue, keeps_an_open_batch_behind_the_prefix)
{
	queue.flush_threshold = 1;
	enqueue(1, 100, 10);
	enqueue(0, 100, 0);
	enqueue(1, 50, 11); /* seals the first batch; connection 0's lies behind it and stays open */
	enqueue(0, 100, 1);
	cr_assert_eq(nr_deliveries, 1);
	gso_queue_flush(&queue);
	cr_assert_str_eq(shape(0), "(100 100)");
}

Test(gso_queue, flushes_when_too_many_connections_are_open)
{
	queue.flush_threshold = 0;
	for (unsigned i = 0; i < GSO_CONNECTIONS_MAX; i++)
		enqueue(i, 100, i);
	cr_assert_eq(nr_deliveries, 0);
	enqueue(GSO_CONNECTIONS_MAX, 100, 1000);
	cr_assert_eq(nr_deliveries, GSO_CONNECTIONS_MAX);
	gso_queue_flush(&queue);
	cr_assert_eq(nr_deliveries, GSO_CONNECTIONS_MAX + 1);
}

Test(gso_queue, flush_of_an_empty_queue_does_nothing)
{
	gso_queue_flush(&queue);
	cr_assert_eq(nr_deliveries, 0);
}

/* Run after the suite's own. */
static void setup_small(void)
{
	teardown();
	setup_pool(3);
}

Test(gso_queue, flushes_first_and_then_waits_when_the_pool_is_dry, .init = setup_small)
{
	queue.flush_threshold = 0;
	for (unsigned i = 0; i < 4; i++)
		enqueue(i, 100, i);
	/* deliver() has returned the three; wait() took the batch of the fourth. */
	cr_assert_eq(waits, 1);
	cr_assert_eq(held_while_waiting, 0);
	cr_assert_eq(nr_deliveries, 3);
	gso_queue_flush(&queue);
	cr_assert_eq(nr_deliveries, 4);
	cr_assert_eq(counter_read(&queue.counters.dropped), 0);
}

Test(gso_queue, drops_and_counts_when_the_wait_is_cancelled, .init = setup_small)
{
	struct udp_batch *taken[3];

	queue.wait = wait_in_vain;
	for (unsigned i = 0; i < 3; i++)
		taken[i] = pool_get(&pool);
	cr_assert_null(gso_queue_slot(&queue, &connection[0], 0, 100));
	cr_assert_eq(counter_read(&queue.counters.dropped), 1);
	/* It goes on as if nothing had been once there are batches again. */
	for (unsigned i = 0; i < 3; i++)
		pool_put(taken[i]);
	enqueue(0, 100, 1);
	gso_queue_flush(&queue);
	cr_assert_eq(nr_deliveries, 1);
}

/*
 * The naive model of the exact rules, without early delivery: all batches ever opened, of which the last of a
 * connection is looked for from the end.
 */
struct model_batch {
	unsigned connection, nr;
	uint32_t segment_len, len;
	uint8_t tos;
	bool closed, gone;
	uint32_t id[GSO_SEGMENTS_MAX];
};

static struct model_batch model[DELIVERIES_MAX];
static unsigned nr_model;

static void model_flush(void)
{
	for (unsigned i = 0; i < nr_model; i++)
		model[i].closed = model[i].gone = true;
}

static void model_add(unsigned conn, uint32_t len, uint32_t id)
{
	struct model_batch *newest = NULL;
	unsigned nr_open = 0;

	for (unsigned i = 0; i < nr_model; i++) {
		if (model[i].connection == conn)
			newest = &model[i];
		nr_open += !model[i].closed;
	}
	if (newest && !newest->closed &&
		(tos != newest->tos || len > newest->segment_len || newest->len + len > GSO_BYTES_MAX)) {
		newest->closed = true;
		nr_open--;
	}
	if (!newest || newest->closed) {
		if (nr_open == GSO_CONNECTIONS_MAX)
			model_flush();
		newest = &model[nr_model++];
		*newest = (struct model_batch){.connection = conn, .segment_len = len, .tos = tos};
	}
	newest->id[newest->nr++] = id;
	newest->len += len;
	if (len < newest->segment_len || newest->nr == GSO_SEGMENTS_MAX)
		newest->closed = true;
}

static uint32_t random_len(void)
{
	static const uint32_t common[] = {1452, 1452, 1452, 1452, 1228, 96, 80, 32};

	switch (random_below(8)) {
	case 0:
		return 4 + random_below(1500);
	case 1:
		return random_below(20) ? 4 + random_below(64) : GSO_BYTES_MAX - random_below(3000);
	default:
		return common[random_below(ARRAY_LEN(common))];
	}
}

Test(gso_queue, equals_naive_model_on_random_input, .timeout = 120)
{
	unsigned seed = random_seed();

	queue.flush_threshold = 0;
	for (unsigned round = 0; round < 60; round++) {
		unsigned connections = 1 + random_below(round % 3 ? 4 : CONNECTIONS);
		unsigned conn = 0;

		nr_deliveries = nr_model = 0;
		for (uint32_t id = 0; id < 1500; id++) {
			uint32_t len = random_len();

			if (!random_below(4))
				conn = random_below(connections);
			if (!random_below(20))
				tos = (uint8_t)random_below(4);
			/* Keep below the pool, so that the pool's own flush does not show here. */
			if (!random_below(100) || pool_in_use(&pool) > 250) {
				gso_queue_flush(&queue);
				model_flush();
			}
			enqueue(conn, len, id);
			model_add(conn, len, id);
		}
		gso_queue_flush(&queue);
		cr_assert_eq(nr_deliveries, nr_model, "seed %u round %u", seed, round);
		for (unsigned i = 0; i < nr_model; i++) {
			cr_assert_eq(
				delivery[i].connection, model[i].connection, "seed %u round %u", seed, round);
			cr_assert_eq(delivery[i].nr, model[i].nr, "seed %u round %u", seed, round);
			cr_assert_eq(delivery[i].tos, model[i].tos, "seed %u round %u", seed, round);
			cr_assert_arr_eq(delivery[i].id, model[i].id, model[i].nr * sizeof(uint32_t),
				"seed %u round %u", seed, round);
		}
		cr_assert_eq(pool_in_use(&pool), 0);
	}
}

static void setup_tight(void)
{
	teardown();
	setup_pool(6);
}

Test(gso_queue, keeps_order_and_loses_nothing_with_early_delivery_and_a_tight_pool, .init = setup_tight,
	.timeout = 120)
{
	unsigned seed = random_seed();

	for (unsigned round = 0; round < 100; round++) {
		unsigned connections = 1 + random_below(CONNECTIONS), conn = 0, total = 0;
		uint32_t next_id[CONNECTIONS] = {0}, seen[CONNECTIONS] = {0};

		queue.flush_threshold = random_below(7);
		nr_deliveries = 0;
		for (unsigned i = 0; i < 1500; i++) {
			if (!random_below(6))
				conn = random_below(connections);
			if (!random_below(20))
				tos = (uint8_t)random_below(4);
			if (!random_below(300))
				gso_queue_flush(&queue);
			/* Ids count up per connection, so that a look at one tells order and completeness. */
			enqueue(conn, random_len(), next_id[conn]++);
		}
		gso_queue_flush(&queue);
		for (unsigned i = 0; i < nr_deliveries; i++)
			for (unsigned k = 0; k < delivery[i].nr; k++, total++)
				cr_assert_eq(delivery[i].id[k], seen[delivery[i].connection]++,
					"seed %u round %u", seed, round);
		cr_assert_eq(total, 1500, "seed %u round %u", seed, round);
		cr_assert_eq(pool_in_use(&pool), 0);
	}
}
