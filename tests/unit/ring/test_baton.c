#include "ring/baton.h"

#include <criterion/criterion.h>
#include <pthread.h>

#include "ring/channel.h"

static struct park park;
static struct baton baton;

static void setup(void)
{
	park_init(&park);
	baton_init(&baton, &park);
}

TestSuite(baton, .init = setup);

Test(baton, has_one_holder)
{
	cr_assert(baton_try(&baton));
	cr_assert_not(baton_try(&baton));
	cr_assert_not(baton_claim(&baton));
	baton_pass(&baton);
	cr_assert(baton_claim(&baton));
	cr_assert_not(baton_try(&baton));
	baton_pass(&baton);
	cr_assert(baton_try(&baton));
}

#ifndef NDEBUG
static void *held_here(void *arg)
{
	return baton_held_by_me(&baton) ? arg : NULL;
}

static bool held_by_another_thread(void)
{
	pthread_t thread;
	void *held;

	cr_assert_not(pthread_create(&thread, NULL, held_here, &baton));
	cr_assert_not(pthread_join(thread, &held));
	return held;
}

Test(baton, knows_its_holder_in_debug_builds)
{
	cr_assert_not(baton_held_by_me(&baton));
	cr_assert(baton_try(&baton));
	cr_assert(baton_held_by_me(&baton));
	cr_assert_not(held_by_another_thread());
	/* Asked for, but not had. */
	cr_assert_not(baton_ask(&baton));
	cr_assert(baton_held_by_me(&baton));
	baton_pass(&baton);
	cr_assert_not(baton_held_by_me(&baton));
	cr_assert(baton_claim(&baton));
	cr_assert(baton_held_by_me(&baton));
	baton_pass(&baton);
	cr_assert_not(baton_held_by_me(&baton));
	cr_assert(baton_ask(&baton));
	cr_assert(baton_held_by_me(&baton));
}
#endif

Test(baton, wakes_the_consumer_that_came_for_it)
{
	cr_assert(baton_try(&baton));
	const uint32_t ticket = park_ticket(&park);
	cr_assert_not(baton_claim(&baton));
	baton_pass(&baton);
	cr_assert(park_wait(&park, ticket, PARK_FOREVER));
}

Test(baton, wakes_nobody_that_did_not_ask)
{
	const uint32_t ticket = park_ticket(&park);

	cr_assert(baton_try(&baton));
	baton_pass(&baton);
	cr_assert_not(park_wait(&park, ticket, park_clock_ns() + 5 * NS_PER_MS));
}

Test(baton, goes_to_the_consumer_before_any_producer)
{
	const uint32_t ticket = park_ticket(&park);

	cr_assert(baton_ask(&baton));
	cr_assert_not(baton_ask(&baton));
	baton_pass(&baton);
	cr_assert(park_wait(&park, ticket, PARK_FOREVER));
	/* It is on its way. */
	cr_assert_not(baton_try(&baton));
	cr_assert_not(baton_ask(&baton));
	cr_assert(baton_claim(&baton));
	baton_pass(&baton);
	cr_assert(baton_ask(&baton));
}

#define ITEMS 200000

static struct channel channel;
static struct spsc_tx tx;
static struct spsc_rx rx;
static uintptr_t last; /* covered by the baton */
static _Atomic bool done;

static void drain(void)
{
	void *item;

	while ((item = spsc_pop(rx))) {
		cr_assert_eq((uintptr_t)item, last + 1);
		last = (uintptr_t)item;
	}
}

static void *consume(void *arg)
{
	while (!atomic_load(&done)) {
		const uint32_t ticket = park_ticket(&park);

		if (baton_claim(&baton)) {
			drain();
			baton_pass(&baton);
		}
		park_wait(&park, ticket, PARK_FOREVER);
	}
	return NULL;
}

/* The producer works for its consumer now and then, in both ways of coming by the baton: nothing is left
 * behind, nothing comes twice or out of order. */
Test(baton, two_hands_empty_a_queue_in_order, .timeout = 60)
{
	pthread_t thread;

	cr_assert_eq(spsc_init(&channel, CHANNEL_SLOTS, NULL, &tx, &rx), 0);
	cr_assert_eq(pthread_create(&thread, NULL, consume, NULL), 0);
	for (uintptr_t i = 1; i <= ITEMS; i++) {
		while (!spsc_push(tx, (void *)i))
			park_wake(&park);
		const bool ask = i % 3 == 1;

		if (i % 3 && (ask ? baton_ask(&baton) : baton_try(&baton))) {
			drain();
			baton_pass(&baton);
		} else if (!ask) {
			park_wake(&park);
		}
	}
	/* Without another push or wake: what is inside comes out. */
	while (channel_len(&channel))
		;
	atomic_store(&done, true);
	park_wake(&park);
	pthread_join(thread, NULL);
	cr_assert_eq(last, ITEMS);
	channel_done(&channel);
}
