#include "ring/histogram.h"

#include <criterion/criterion.h>

/* The first bucket whose bound holds the value. */
static unsigned naive_index(uint32_t value)
{
	unsigned i = 0;

	while (value > histogram_bound(i))
		i++;
	return i;
}

Test(histogram, each_value_is_in_the_first_bucket_that_holds_it)
{
	for (uint32_t value = 0; value < 5000; value++)
		cr_assert_eq(histogram_index(value), naive_index(value), "%u", value);
	for (unsigned bit = 0; bit < 32; bit++)
		for (int d = -1; d <= 1; d++) {
			const uint32_t value = (UINT32_C(1) << bit) + (uint32_t)d;

			cr_assert_eq(histogram_index(value), naive_index(value), "%u", value);
		}
	cr_assert_eq(histogram_index(UINT32_MAX), HISTOGRAM_BUCKETS - 1);
}

Test(histogram, buckets_are_zero_then_powers_of_two)
{
	cr_assert_eq(histogram_bound(0), 0);
	for (unsigned i = 1; i < HISTOGRAM_BUCKETS - 1; i++)
		cr_assert_eq(histogram_bound(i), 1u << (i - 1));
	cr_assert_eq(histogram_bound(HISTOGRAM_BUCKETS - 1), UINT32_MAX);
}

Test(histogram, buckets_add_up_to_what_was_added)
{
	struct histogram h = {0};
	uint64_t sum = 0;

	for (uint32_t value = 0; value < 3000; value++)
		histogram_add(&h, value);
	histogram_add_times(&h, 1, 7);
	cr_assert_eq(counter_read(&h.bucket[0]), 1);
	cr_assert_eq(counter_read(&h.bucket[1]), 8);
	cr_assert_eq(counter_read(&h.bucket[11]), 512, "513 to 1024");
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		sum += counter_read(&h.bucket[i]);
	cr_assert_eq(sum, 3007);
}
