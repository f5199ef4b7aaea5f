#include "ring/channel.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

static char items[2048]; /* their addresses are the items */

static const unsigned capacities[] = {1, 2, 3, 4, 5, 7, 8, 63, 64, 65, 1000, 1023, 1024};

Test(channel, refuses_capacities_that_no_ring_has_and_writes_nothing)
{
	struct channel ch = {.capacity = 7};
	struct spsc_tx spsc_tx = {NULL};
	struct spsc_rx spsc_rx = {NULL};
	struct mpsc_tx mpsc_tx = {NULL};
	struct mpsc_rx mpsc_rx = {NULL};

	cr_assert_eq(spsc_init(&ch, 0, NULL, &spsc_tx, &spsc_rx), -EINVAL);
	cr_assert_eq(spsc_init(&ch, (1u << 20) + 1, NULL, &spsc_tx, &spsc_rx), -EINVAL);
	cr_assert_eq(spsc_init(&ch, UINT32_MAX, NULL, &spsc_tx, &spsc_rx), -EINVAL);
	cr_assert_eq(mpsc_init(&ch, 0, NULL, &mpsc_tx, &mpsc_rx), -EINVAL);
	cr_assert_eq(mpsc_init(&ch, (1u << 20) + 1, NULL, &mpsc_tx, &mpsc_rx), -EINVAL);
	cr_assert_eq(ch.capacity, 7);
	cr_assert_null(spsc_tx.ch);
	cr_assert_null(spsc_rx.ch);
	cr_assert_null(mpsc_tx.ch);
	cr_assert_null(mpsc_rx.ch);
}

Test(channel, accepts_the_largest_capacity)
{
	struct channel ch;
	struct spsc_tx tx;
	struct spsc_rx rx;

	cr_assert_eq(spsc_init(&ch, 1u << 20, NULL, &tx, &rx), 0);
	for (unsigned i = 0; i < 1u << 20; i++)
		cr_assert(spsc_push(tx, &items[0]));
	cr_assert_not(spsc_push(tx, &items[0]));
	channel_done(&ch);
}

Test(channel, ends_a_zeroed_and_an_already_ended_one)
{
	struct channel ch = {0};
	struct spsc_tx tx;
	struct spsc_rx rx;

	channel_done(&ch);
	cr_assert_eq(spsc_init(&ch, 4, NULL, &tx, &rx), 0);
	channel_done(&ch);
	channel_done(&ch);
	cr_assert_null(ch.slots);
}

Test(channel, spsc_holds_exactly_its_capacity_in_order)
{
	for (size_t c = 0; c < ARRAY_LEN(capacities); c++) {
		unsigned capacity = capacities[c];
		struct channel ch;
		struct spsc_tx tx;
		struct spsc_rx rx;

		cr_assert_eq(spsc_init(&ch, capacity, NULL, &tx, &rx), 0);
		cr_assert_null(spsc_pop(rx));
		for (unsigned i = 0; i < capacity; i++) {
			cr_assert_eq(channel_len(&ch), i);
			cr_assert(spsc_push(tx, &items[i]), "capacity %u refused item %u", capacity, i);
		}
		cr_assert_not(spsc_push(tx, &items[capacity]), "capacity %u took one too many", capacity);
		cr_assert_eq(channel_len(&ch), capacity);
		cr_assert_eq(counter_read(&ch.counters.refused), 1);
		cr_assert_eq(counter_read(&ch.counters.high_water), capacity);
		for (unsigned i = 0; i < capacity; i++)
			cr_assert_eq(spsc_pop(rx), &items[i], "capacity %u broke the order", capacity);
		cr_assert_null(spsc_pop(rx));
		cr_assert_eq(counter_read(&ch.counters.high_water), capacity, "high water fell");
		channel_done(&ch);
	}
}

Test(channel, mpsc_holds_exactly_its_capacity_in_order)
{
	for (size_t c = 0; c < ARRAY_LEN(capacities); c++) {
		unsigned capacity = capacities[c];
		struct channel ch;
		struct mpsc_tx tx;
		struct mpsc_rx rx;

		cr_assert_eq(mpsc_init(&ch, capacity, NULL, &tx, &rx), 0);
		cr_assert_null(mpsc_pop(rx));
		for (unsigned i = 0; i < capacity; i++)
			cr_assert(mpsc_push(tx, &items[i]), "capacity %u refused item %u", capacity, i);
		cr_assert_not(mpsc_push(tx, &items[capacity]), "capacity %u took one too many", capacity);
		cr_assert_eq(channel_len(&ch), capacity);
		cr_assert_eq(counter_read(&ch.counters.refused), 1);
		cr_assert_eq(counter_read(&ch.counters.high_water), capacity);
		for (unsigned i = 0; i < capacity; i++)
			cr_assert_eq(mpsc_pop(rx), &items[i], "capacity %u broke the order", capacity);
		cr_assert_null(mpsc_pop(rx));
		channel_done(&ch);
	}
}

Test(channel, full_one_takes_one_more_for_each_one_taken_out)
{
	struct channel ch;
	struct spsc_tx tx;
	struct spsc_rx rx;

	cr_assert_eq(spsc_init(&ch, CHANNEL_SLOTS, NULL, &tx, &rx), 0);
	for (unsigned i = 0; i < CHANNEL_SLOTS; i++)
		cr_assert(spsc_push(tx, &items[i]));
	for (unsigned i = 0; i < 5000; i++) {
		cr_assert_not(spsc_push(tx, &items[0]));
		cr_assert_eq(spsc_pop(rx), &items[i % CHANNEL_SLOTS]);
		cr_assert(spsc_push(tx, &items[i % CHANNEL_SLOTS]));
	}
	cr_assert_eq(counter_read(&ch.counters.refused), 5000);
	channel_done(&ch);
}

/* The indices of ck_ring count on for ever in 32 bits. */
static void wind_on(struct channel *ch, unsigned to)
{
	ch->ring.c_head = ch->ring.p_tail = ch->ring.p_head = to;
}

Test(channel, keeps_capacity_and_order_when_the_indices_wrap)
{
	struct channel ch;
	struct spsc_tx tx;
	struct spsc_rx rx;
	struct mpsc_tx mtx;
	struct mpsc_rx mrx;

	cr_assert_eq(spsc_init(&ch, 100, NULL, &tx, &rx), 0);
	wind_on(&ch, UINT32_MAX - 50);
	for (unsigned i = 0; i < 100; i++)
		cr_assert(spsc_push(tx, &items[i]));
	cr_assert_not(spsc_push(tx, &items[100]));
	for (unsigned i = 0; i < 100; i++)
		cr_assert_eq(spsc_pop(rx), &items[i]);
	cr_assert_null(spsc_pop(rx));
	channel_done(&ch);

	cr_assert_eq(mpsc_init(&ch, 100, NULL, &mtx, &mrx), 0);
	wind_on(&ch, UINT32_MAX - 50);
	for (unsigned i = 0; i < 100; i++)
		cr_assert(mpsc_push(mtx, &items[i]));
	cr_assert_not(mpsc_push(mtx, &items[100]));
	for (unsigned i = 0; i < 100; i++)
		cr_assert_eq(mpsc_pop(mrx), &items[i]);
	cr_assert_null(mpsc_pop(mrx));
	channel_done(&ch);
}

Test(channel, agrees_with_an_array_on_random_pushes_and_pops)
{
	unsigned seed = (unsigned)time(NULL);
	unsigned capacity, head = 0, tail = 0;
	unsigned refused = 0, high_water = 0;
	static void *model[200001];
	struct channel spsc, mpsc;
	struct spsc_tx stx;
	struct spsc_rx srx;
	struct mpsc_tx mtx;
	struct mpsc_rx mrx;

	cr_log_info("seed %u", seed);
	srandom(seed);
	capacity = 1 + (unsigned)random() % 70;
	cr_assert_eq(spsc_init(&spsc, capacity, NULL, &stx, &srx), 0);
	cr_assert_eq(mpsc_init(&mpsc, capacity, NULL, &mtx, &mrx), 0);
	for (unsigned i = 0; i < 200000; i++) {
		/* Lean towards full and towards empty in turns, so that both edges are met. */
		bool push = random() % 100 < (i / 1000 % 2 ? 65 : 35);

		if (push) {
			void *item = &items[random() % (long)sizeof(items)];
			bool room = tail - head < capacity;

			cr_assert_eq(spsc_push(stx, item), room, "seed %u", seed);
			cr_assert_eq(mpsc_push(mtx, item), room, "seed %u", seed);
			if (room)
				model[tail++] = item;
			refused += !room;
			high_water = MAX(high_water, tail - head);
		} else {
			void *item = head < tail ? model[head++] : NULL;

			cr_assert_eq(spsc_pop(srx), item, "seed %u", seed);
			cr_assert_eq(mpsc_pop(mrx), item, "seed %u", seed);
		}
		cr_assert_eq(channel_len(&spsc), tail - head, "seed %u", seed);
		cr_assert_eq(channel_len(&mpsc), tail - head, "seed %u", seed);
	}
	cr_assert_eq(counter_read(&spsc.counters.refused), refused, "seed %u", seed);
	cr_assert_eq(counter_read(&mpsc.counters.refused), refused, "seed %u", seed);
	cr_assert_eq(counter_read(&spsc.counters.high_water), high_water, "seed %u", seed);
	cr_assert_eq(counter_read(&mpsc.counters.high_water), high_water, "seed %u", seed);
	channel_done(&spsc);
	channel_done(&mpsc);
}

Test(channel, push_makes_the_consumers_ticket_stale_and_a_refused_one_does_not)
{
	struct park park;
	struct channel spsc, mpsc;
	struct spsc_tx stx;
	struct spsc_rx srx;
	struct mpsc_tx mtx;
	struct mpsc_rx mrx;
	uint32_t ticket;

	park_init(&park);
	cr_assert_eq(spsc_init(&spsc, 1, &park, &stx, &srx), 0);
	cr_assert_eq(mpsc_init(&mpsc, 1, &park, &mtx, &mrx), 0);

	ticket = park_ticket(&park);
	cr_assert(spsc_push(stx, &items[0]));
	cr_assert_neq(park_ticket(&park), ticket);

	ticket = park_ticket(&park);
	cr_assert(mpsc_push(mtx, &items[0]));
	cr_assert_neq(park_ticket(&park), ticket);

	ticket = park_ticket(&park);
	cr_assert_not(spsc_push(stx, &items[0]));
	cr_assert_not(mpsc_push(mtx, &items[0]));
	cr_assert_eq(park_ticket(&park), ticket);
	cr_assert_eq(park.counters.wakes, 0, "a futex call although nobody sleeps");
	channel_done(&spsc);
	channel_done(&mpsc);
}
