#include "core/index_table.h"
#include "tests/unit/core/support.h"

static struct index_table table;
static struct peer *const some_peer = (struct peer *)&table; /* only compared */

static void init(void)
{
	state_init();
	cr_assert_eq(index_table_init(&table), 0);
}

static void done(void)
{
	rcu_barrier();
	index_table_done(&table);
	cr_assert_eq(secret_in_use(), 0);
}

TestSuite(index_table, .init = init, .fini = done);

Test(index_table, finds_what_was_added_until_it_is_removed)
{
	struct index_entry *e = index_table_add(&table, some_peer, 3);

	cr_assert_eq(index_table_find(&table, e->index), e);
	cr_assert_eq(e->peer, some_peer);
	cr_assert_eq(e->owner, 3);
	cr_assert_null(e->keypair);
	cr_assert_null(index_table_find(&table, e->index + 1));
	const uint32_t index = e->index;
	index_table_remove(&table, e);
	cr_assert_null(index_table_find(&table, index));
	index_table_remove(&table, NULL);
}

Test(index_table, removal_retires_the_session_at_once_and_frees_it_after_a_grace_period)
{
	struct index_entry *e = index_table_add(&table, some_peer, 0);
	struct keypair *k = keypair_new();

	index_table_set_keypair(e, k);
	cr_assert_eq(index_table_find(&table, e->index)->keypair, k);
	cr_assert(!atomic_load(&k->retired));
	index_table_remove(&table, e);
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

Test(index_table, indices_are_unique_and_spread_over_all_32_bits)
{
	enum { N = 100000 };
	static struct index_entry *entries[N];
	static uint32_t indices[N];
	unsigned ones[32] = {0};

	for (unsigned i = 0; i < N; i++) {
		entries[i] = index_table_add(&table, some_peer, 0);
		indices[i] = entries[i]->index;
		for (unsigned b = 0; b < 32; b++)
			ones[b] += indices[i] >> b & 1;
	}
	for (unsigned b = 0; b < 32; b++)
		cr_assert(ones[b] > N / 2 - N / 50 && ones[b] < N / 2 + N / 50, "bit %u is set in %u of %u",
			b, ones[b], N);
	for (unsigned i = 0; i < N; i++)
		cr_assert_eq(index_table_find(&table, indices[i]), entries[i]);
	qsort(indices, N, sizeof(indices[0]), compare);
	for (unsigned i = 1; i < N; i++)
		cr_assert_neq(indices[i], indices[i - 1]);
	for (unsigned i = 0; i < N; i++)
		index_table_remove(&table, entries[i]);
}

Test(index_table, a_taken_index_is_not_given_out_again)
{
	/* The same seed gives the same first choice. */
	random_seed_all(42);
	struct index_entry *first = index_table_add(&table, some_peer, 0);
	random_seed_all(42);
	struct index_entry *second = index_table_add(&table, some_peer, 0);

	cr_assert_neq(first->index, second->index);
	cr_assert_eq(index_table_find(&table, first->index), first);
	index_table_remove(&table, first);
	index_table_remove(&table, second);
}
