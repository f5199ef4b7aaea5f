#include "crypto/replay.h"

#include "crypto/keypair.h"

static bool test_and_set(struct replay *r, uint64_t counter);
static void slide(struct replay *r, uint64_t counter);

void replay_init(struct replay *r)
{
	memset(r, 0, sizeof(*r));
}

bool replay_accept(struct replay *r, uint64_t counter)
{
	if (counter >= REJECT_AFTER_MESSAGES)
		return false;
	if (counter >= r->next)
		slide(r, counter);
	else if (r->next - 1 - counter > REPLAY_WINDOW)
		return false;
	return test_and_set(r, counter);
}

static bool test_and_set(struct replay *r, uint64_t counter)
{
	uint64_t *word = &r->bitmap[counter / 64 % REPLAY_WORDS];
	uint64_t bit = UINT64_C(1) << counter % 64;

	if (*word & bit)
		return false;
	*word |= bit;
	return true;
}

/*
 * Makes counter the highest and clears the words that come into use. The window is one word shorter than the
 * ring, so its two ends never share a word.
 */
static void slide(struct replay *r, uint64_t counter)
{
	if (r->next != 0) {
		uint64_t word = (r->next - 1) / 64;
		uint64_t fresh = MIN(counter / 64 - word, REPLAY_WORDS);

		for (uint64_t i = 1; i <= fresh; i++)
			r->bitmap[(word + i) % REPLAY_WORDS] = 0;
	}
	r->next = counter + 1;
}
