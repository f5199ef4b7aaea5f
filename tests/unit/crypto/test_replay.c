#include "support.h"

#include <stdlib.h>

#include "crypto/keypair.h"

TestSuite(replay, .init = support_init);

static struct replay replay;

Test(replay, accepts_each_counter_once)
{
	replay_init(&replay);
	for (uint64_t i = 0; i < 3 * REPLAY_BITS; i++) {
		cr_assert(replay_accept(&replay, i));
		cr_assert_not(replay_accept(&replay, i));
	}
}

Test(replay, accepts_counter_zero_first_and_after_others)
{
	replay_init(&replay);
	cr_assert(replay_accept(&replay, 0));
	cr_assert_not(replay_accept(&replay, 0));
	replay_init(&replay);
	cr_assert(replay_accept(&replay, 5));
	cr_assert(replay_accept(&replay, 0));
	cr_assert_not(replay_accept(&replay, 0));
}

/* At every position of the highest counter within its word. */
Test(replay, window_is_exactly_8128)
{
	cr_assert_eq(REPLAY_WINDOW, 8128);
	for (uint64_t highest = 100000; highest < 100000 + 130; highest++) {
		replay_init(&replay);
		cr_assert(replay_accept(&replay, highest));
		cr_assert_not(replay_accept(&replay, highest - 8129));
		cr_assert(replay_accept(&replay, highest - 8128));
		cr_assert_not(replay_accept(&replay, highest - 8128));
		cr_assert(replay_accept(&replay, highest - 8127));
		cr_assert_not(replay_accept(&replay, highest));
	}
}

Test(replay, accepts_a_whole_window_backwards)
{
	const uint64_t highest = UINT64_C(1) << 40;

	replay_init(&replay);
	for (uint64_t back = 0; back <= REPLAY_WINDOW; back++)
		cr_assert(replay_accept(&replay, highest - back));
	for (uint64_t back = 0; back <= REPLAY_WINDOW + 200; back++)
		cr_assert_not(replay_accept(&replay, highest - back));
}

Test(replay, forgets_everything_on_a_jump_past_the_window)
{
	for (uint64_t jump = REPLAY_BITS - 130; jump < REPLAY_BITS + 130; jump++) {
		replay_init(&replay);
		for (uint64_t i = 0; i < 200; i++)
			cr_assert(replay_accept(&replay, i));
		cr_assert(replay_accept(&replay, 199 + jump));
		/* What lies between was never seen. */
		for (uint64_t back = 1; back <= MIN(jump - 1, REPLAY_WINDOW); back++)
			cr_assert(replay_accept(&replay, 199 + jump - back), "jump %lu back %lu", jump, back);
	}
}

Test(replay, refuses_counters_from_the_message_limit_on)
{
	replay_init(&replay);
	cr_assert_not(replay_accept(&replay, REJECT_AFTER_MESSAGES));
	cr_assert_not(replay_accept(&replay, UINT64_MAX));
	cr_assert_not(replay_accept(&replay, UINT64_MAX - 1));
	cr_assert(replay_accept(&replay, 7));
	cr_assert(replay_accept(&replay, REJECT_AFTER_MESSAGES - 1));
	cr_assert_not(replay_accept(&replay, REJECT_AFTER_MESSAGES));
	cr_assert_not(replay_accept(&replay, REJECT_AFTER_MESSAGES - 1));
	cr_assert(replay_accept(&replay, REJECT_AFTER_MESSAGES - 2));
	cr_assert_not(replay_accept(&replay, 8));
}

Test(replay, message_limits_are_those_of_the_protocol)
{
	cr_assert_eq(REKEY_AFTER_MESSAGES, UINT64_C(1152921504606846976));
	cr_assert_eq(REJECT_AFTER_MESSAGES, UINT64_C(18446744073709543423)); /* 2^64 - 2^13 - 1 */
}

/* The model remembers every counter it ever accepted. */
#define MODEL_SPAN (1u << 20)

struct model {
	bool seen[MODEL_SPAN];
	uint64_t base, highest;
	bool any;
};

static bool model_accept(struct model *m, uint64_t counter)
{
	if (counter >= REJECT_AFTER_MESSAGES || m->seen[counter - m->base])
		return false;
	if (m->any && counter < m->highest && m->highest - counter > 8128)
		return false;
	m->seen[counter - m->base] = true;
	m->highest = m->any ? MAX(m->highest, counter) : counter;
	m->any = true;
	return true;
}

Test(replay, agrees_with_a_set_of_all_counters)
{
	static const uint64_t bases[] = {
		0, UINT32_MAX - 4000, UINT64_C(1) << 60, REJECT_AFTER_MESSAGES - MODEL_SPAN + 500};
	static struct model model;
	struct random random;

	random_init(&random, "replay model");
	for (size_t b = 0; b < ARRAY_LEN(bases) * 4; b++) {
		uint64_t at = 0;
		unsigned accepted = 0;

		memset(&model, 0, sizeof(model));
		model.base = bases[b % ARRAY_LEN(bases)];
		replay_init(&replay);
		for (unsigned step = 0; step < 60000; step++) {
			uint64_t r = random_next(&random), counter;
			bool expected;

			switch (r % 16) {
			case 0: /* far jump */
				at += (r >> 8) % 20000;
				break;
			case 1: /* to just around the window's far edge */
				at = at > 8200 ? at - 8200 + (r >> 8) % 150 : at;
				break;
			case 2 ... 5: /* reordering */
				at -= MIN(at, (r >> 8) % 300);
				break;
			default:
				at += (r >> 8) % 3;
			}
			if (at >= MODEL_SPAN)
				at = model.highest - model.base;
			counter = model.base + at;
			expected = model_accept(&model, counter);
			accepted += expected;
			cr_assert_eq(replay_accept(&replay, counter), expected,
				"step %u counter %lu highest %lu", step, counter, model.highest);
		}
		cr_assert_gt(accepted, 1000);
	}
}
