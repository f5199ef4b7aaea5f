#include "core/base/array.h"

#include <criterion/criterion.h>
#include <errno.h>

#include "crypto/secret.h"
#include "tests/unit/mapping.h"

struct item {
	uint64_t value;
	uint8_t rest[5];
};

Test(array, keeps_its_items_and_zeroes_what_is_new)
{
	struct item *items = NULL;
	unsigned capacity = 0;

	for (unsigned nr = 0; nr < 1000; nr++) {
		cr_assert_eq(array_grow(&items, &capacity, nr + 1, sizeof(*items)), 0);
		cr_assert_gt(capacity, nr);
		cr_assert_eq(items[nr].value, 0);
		cr_assert_eq(items[nr].rest[4], 0);
		items[nr].value = nr + 7;
		items[nr].rest[4] = 9;
	}
	for (unsigned nr = 0; nr < 1000; nr++)
		cr_assert_eq(items[nr].value, nr + 7);
	array_free(items, capacity, sizeof(*items));
	array_free(NULL, 0, sizeof(*items));
}

Test(array, doubles_or_takes_what_is_wanted)
{
	uint32_t *items = NULL;
	unsigned capacity = 0, moves = 0;

	for (unsigned nr = 0; nr < 100000; nr++) {
		const uint32_t *old = items;

		cr_assert_eq(array_grow(&items, &capacity, nr + 1, sizeof(*items)), 0);
		moves += items != old;
	}
	cr_assert_lt(moves, 20, "%u moves", moves);
	cr_assert_eq(array_grow(&items, &capacity, 1000003, sizeof(*items)), 0);
	cr_assert_eq(capacity, 1000003);
	array_free(items, capacity, sizeof(*items));
}

Test(array, stays_as_it_is_without_memory)
{
	uint32_t *items = NULL, *old;
	unsigned capacity = 0, old_capacity;

	cr_assert_eq(array_grow(&items, &capacity, 1, sizeof(*items)), 0);
	items[0] = 5;
	old = items;
	old_capacity = capacity;
	cr_assert_eq(array_grow(&items, &capacity, UINT32_MAX, SIZE_MAX / 2), -ENOMEM);
	cr_assert_eq(items, old);
	cr_assert_eq(capacity, old_capacity);
	cr_assert_eq(items[0], 5);
	array_free(items, capacity, sizeof(*items));
}

Test(array, of_secrets_grows_in_guarded_memory_and_leaves_nothing)
{
	struct item *items = NULL;
	unsigned capacity = 0;

	for (unsigned nr = 0; nr < 20000; nr++) {
		cr_assert_eq(array_grow_secret(&items, &capacity, nr + 1, sizeof(*items)), 0);
		cr_assert_eq(items[nr].value, 0);
		items[nr].value = nr + 7;
		/* Each time it has moved. */
		if (!(nr & (nr - 1)))
			cr_assert(mapping_has_flag(items, " dd") && mapping_has_flag(&items[nr], " dd"));
	}
	for (unsigned nr = 0; nr < 20000; nr++)
		cr_assert_eq(items[nr].value, nr + 7);
	cr_assert_eq(secret_in_use(), capacity * sizeof(*items));
	cr_assert_eq(array_grow_secret(&items, &capacity, UINT32_MAX, SIZE_MAX / 2), -ENOMEM);
	cr_assert_eq(items[19999].value, 20006);
	array_free_secret(items, capacity, sizeof(*items));
	cr_assert_eq(secret_in_use(), 0);
	array_free_secret(NULL, 0, sizeof(*items));
}
