/*
 * The Internet checksum (RFC 1071) as a running sum: 16-bit words in memory order, carries kept in a 64-bit
 * accumulator and folded once at the end. Memory order means that a folded sum is stored with memcpy(), on
 * any byte order, and that a word is added as it lies in the packet. No state; any thread.
 */
#pragma once

#include "ring/base.h"

#define CHECKSUM_BYTES_MAX (1u << 20) /* per call of checksum_add(): its vector lanes hold no more */

/*
 * sum plus the words of len (up to CHECKSUM_BYTES_MAX) bytes at data, any alignment; an odd last byte counts
 * as followed by zero. So every piece of a whole but the last has an even length. Uses the widest vectors that
 * may be used here (ring/cpu.h).
 */
uint64_t checksum_add(uint64_t sum, const void *data, size_t len);

/* The same for short runs of whole 32-bit words (headers, addresses), inline. len is a multiple of 4. */
static inline uint64_t checksum_add_words(uint64_t sum, const void *data, size_t len)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < len; i += 4) {
		uint32_t v;

		memcpy(&v, p + i, sizeof(v));
		sum += v;
	}
	return sum;
}

/* sum plus a 16-bit or 32-bit number that is, or will be, stored in network order. */
static inline uint64_t checksum_add_be16(uint64_t sum, uint16_t v)
{
	return sum + htobe16(v);
}

static inline uint64_t checksum_add_be32(uint64_t sum, uint32_t v)
{
	return sum + htobe32(v);
}

/* The sum modulo 0xffff in 16 bits, memory order, not complemented: what a partial checksum field holds. */
static inline uint16_t checksum_fold(uint64_t sum)
{
	sum = (sum >> 32) + (uint32_t)sum;
	sum = (sum >> 32) + (uint32_t)sum;
	sum = (sum >> 16) + (uint16_t)sum;
	sum = (sum >> 16) + (uint16_t)sum;
	sum = (sum >> 16) + (uint16_t)sum;
	return (uint16_t)sum;
}

/* Stores the finished checksum: the complement of the folded sum. */
static inline void checksum_store(void *field, uint64_t sum)
{
	uint16_t v = (uint16_t)~checksum_fold(sum);

	memcpy(field, &v, sizeof(v));
}

/* The same for UDP, where zero on the wire means "no checksum" and is sent as 0xffff (RFC 768). */
static inline void checksum_store_nonzero(void *field, uint64_t sum)
{
	uint16_t v = (uint16_t)~checksum_fold(sum);

	v = v ? v : 0xffff;
	memcpy(field, &v, sizeof(v));
}

/* Every implementation in this build, for tests and benchmarks; the last entry has a NULL name. */
struct checksum_impl {
	const char *name;
	bool (*usable)(void);
	uint64_t (*add)(uint64_t sum, const void *data, size_t len);
};
extern const struct checksum_impl checksum_impls[];
