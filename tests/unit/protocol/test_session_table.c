#include "core/protocol/session_table.h"
#include "tests/unit/protocol/support.h"

static struct session_table table;
static struct peer *const some_peer = (struct peer *)&table; /* only compared */

static void init(void)
{
	state_init();
	cr_assert_eq(session_table_init(&table), 0);
}

static void done(void)
{
	rcu_barrier();
	session_table_done(&table);
	cr_assert_eq(secret_in_use(), 0);
}

TestSuite(session_table, .init = init, .fini = done);

Test(session_table, finds_what_was_added_until_it_is_removed)
{
	struct session *e = session_table_add(&table, some_peer, 3);

	cr_assert_eq(session_table_find(&table, e->index), e);
	cr_assert_eq(e->peer, some_peer);
	cr_assert_eq(e->owner, 3);
	cr_assert_null(e->keypair);
	cr_assert_null(session_table_find(&table, e->index + 1));
	const uint32_t index = e->index;
	session_table_remove(&table, e);
	cr_assert_null(session_table_find(&table, index));
	session_table_remove(&table, NULL);
}

Test(session_table, removal_retires_the_session_at_once_and_frees_it_after_a_grace_period)
{
	struct session *e = session_table_add(&table, some_peer, 0);
	struct keypair *k = keypair_new();

	session_table_set_keypair(e, k);
	cr_assert_eq(session_table_find(&table, e->index)->keypair, k);
	cr_assert(!atomic_load(&k->retired));
	session_table_remove(&table, e);
	/* This thread is a reader and has not been quiescent: what it holds stays. */
	cr_assert(atomic_load(&k->retired));
	cr_assert_gt(secret_in_use(), 0);
	rcu_barrier();
	cr_assert_eq(secret_in_use(), 0);
}

static int compare(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

Test(session_table, indices_are_unique_and_spread_over_all_32_bits)
{
	enum { N = 100000 };
	static struct session *entries[N];
	static uint32_t indices[N];
	unsigned ones[32] = {0};

	for (unsigned i = 0; i < N; i++) {
		entries[i] = session_table_add(&table, some_peer, 0);
		indices[i] = entries[i]->index;
		for (unsigned b = 0; b < 32; b++)
			ones[b] += indices[i] >> b & 1;
	}
	for (unsigned b = 0; b < 32; b++)
		cr_assert(ones[b] > N / 2 - N / 50 && ones[b] < N / 2 + N / 50, "bit %u is set in %u of %u",
			b, ones[b], N);
	for (unsigned i = 0; i < N; i++)
		cr_assert_eq(session_table_find(&table, indices[i]), entries[i]);
	qsort(indices, N, sizeof(indices[0]), compare);
	for (unsigned i = 1; i < N; i++)
		cr_assert_neq(indices[i], indices[i - 1]);
	for (unsigned i = 0; i < N; i++)
		session_table_remove(&table, entries[i]);
}

Test(session_table, a_taken_index_is_not_given_out_again)
{
	/* The same seed gives the same first choice. */
	random_seed_all(42);
	struct session *first = session_table_add(&table, some_peer, 0);
	random_seed_all(42);
	struct session *second = session_table_add(&table, some_peer, 0);

	cr_assert_neq(first->index, second->index);
	cr_assert_eq(session_table_find(&table, first->index), first);
	session_table_remove(&table, first);
	session_table_remove(&table, second);
}
