/*
 * Counts values by their power of two. One writing thread and any number of readers, as counter_t. Adding
 * costs a bit scan, a load and a store: meant for once per train or system call, not once per packet.
 *
 * Bucket 0 counts zeros; bucket i > 0 the values above 2^(i-2) up to 2^(i-1): 1, 2, 3 to 4, 5 to 8, ...; the
 * last one everything above.
 */
#pragma once

#include "ring/base.h"

#define HISTOGRAM_BUCKETS 13 /* up to 1024, and what is above */

struct histogram {
	counter_t bucket[HISTOGRAM_BUCKETS];
};

static inline unsigned histogram_index(uint32_t value)
{
	/* value - 1, so that a power of two is the last of its bucket. */
	const unsigned i = value < 2 ? value : 33 - (unsigned)__builtin_clz(value - 1);

	return MIN(i, HISTOGRAM_BUCKETS - 1u);
}

static inline void histogram_add(struct histogram *h, uint32_t value)
{
	counter_add(&h->bucket[histogram_index(value)], 1);
}

/* Adds the same value so many times. */
static inline void histogram_add_times(struct histogram *h, uint32_t value, uint64_t times)
{
	counter_add(&h->bucket[histogram_index(value)], times);
}

/* The largest value of bucket i; UINT32_MAX of the last. */
static inline uint32_t histogram_bound(unsigned i)
{
	assert(i < HISTOGRAM_BUCKETS);
	if (i == HISTOGRAM_BUCKETS - 1)
		return UINT32_MAX;
	return i ? UINT32_C(1) << (i - 1) : 0;
}
