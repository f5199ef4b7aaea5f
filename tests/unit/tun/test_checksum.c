#include "tun/checksum.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "packets.h"

static uint16_t wire(uint64_t sum)
{
	uint8_t field[2];

	checksum_store(field, sum);
	return load_be16(field);
}

/* One implementation, on top of a sum, against the naive one. */
static void impl_equals_naive(const struct checksum_impl *impl, const uint8_t *p, size_t len)
{
	const uint16_t before = 0xfedc;

	cr_assert_eq(wire(impl->add(checksum_add_be16(0, before), p, len)),
		(uint16_t)~naive_sum(before, p, len), "%s, %zu bytes at %p", impl->name, len,
		(const void *)p);
}

/* Every implementation that may be used here. */
static void equals_naive(const uint8_t *p, size_t len)
{
	for (const struct checksum_impl *impl = checksum_impls; impl->name; impl++)
		if (impl->usable())
			impl_equals_naive(impl, p, len);
}

Test(checksum, matches_rfc_1071_example)
{
	const uint8_t data[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};

	cr_assert_eq(wire(checksum_add(0, data, sizeof(data))), (uint16_t)~0xddf2);
}

static void equals_naive_at_every_length_and_alignment(const char *name)
{
	static _Alignas(64) uint8_t data[65535 + 64];
	static const size_t longer[] = {1400, 1401, 1460, 9000, 9001, 65534, 65535};
	uint64_t state = rnd_seed("checksum");
	const struct checksum_impl *impl = checksum_impls;

	while (impl->name && strcmp(impl->name, name) != 0)
		impl++;
	if (!impl->name || !impl->usable())
		cr_skip_test("%s may not be used here", name);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)rnd(&state);
	for (size_t at = 0; at < 64; at++) {
		for (size_t len = 0; len <= 300; len++)
			impl_equals_naive(impl, data + at, len);
		for (unsigned i = 0; i < ARRAY_LEN(longer); i++)
			impl_equals_naive(impl, data + at, longer[i]);
	}
	for (size_t len = 301; len <= 2100; len++)
		impl_equals_naive(impl, data + len % 67, len);
}

Test(checksum, avx512_equals_the_naive_one_at_every_length_and_alignment)
{
	equals_naive_at_every_length_and_alignment("avx512");
}

Test(checksum, avx2_equals_the_naive_one_at_every_length_and_alignment)
{
	equals_naive_at_every_length_and_alignment("avx2");
}

Test(checksum, portable_equals_the_naive_one_at_every_length_and_alignment)
{
	equals_naive_at_every_length_and_alignment("portable");
}

Test(checksum, carries_are_kept_at_every_length)
{
	static uint8_t data[600];
	static const uint8_t fill[] = {0x00, 0xff, 0x7f, 0x80};

	for (unsigned f = 0; f < ARRAY_LEN(fill); f++) {
		memset(data, fill[f], sizeof(data));
		for (size_t len = 0; len <= sizeof(data); len++)
			equals_naive(data, len);
	}
}

Test(checksum, lanes_do_not_overflow_at_the_longest_length)
{
	uint8_t *data = malloc(CHECKSUM_BYTES_MAX);
	static const uint8_t fill[] = {0x00, 0xff, 0x7f, 0x80};

	cr_assert(data);
	for (unsigned f = 0; f < ARRAY_LEN(fill); f++) {
		memset(data, fill[f], CHECKSUM_BYTES_MAX);
		for (size_t less = 0; less < 3; less++)
			equals_naive(data, CHECKSUM_BYTES_MAX - less);
	}
	free(data);
}

Test(checksum, reads_nothing_past_the_end)
{
	for (size_t len = 1; len < 300; len++) {
		/* exactly as long, so that the address sanitizer sees any more */
		uint8_t *data = malloc(len);

		cr_assert(data);
		memset(data, 0xab, len);
		equals_naive(data, len);
		free(data);
	}
}

/* In every build, and also for what the address sanitizer does not see: masked vector loads. */
Test(checksum, touches_no_page_beside_the_data)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint64_t state = rnd_seed("checksum pages");
	uint8_t *data = mmap(NULL, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq((void *)data, MAP_FAILED);
	data += page;
	cr_assert_eq(mprotect(data, page, PROT_READ | PROT_WRITE), 0);
	for (size_t i = 0; i < page; i++)
		data[i] = (uint8_t)rnd(&state);
	for (size_t len = 0; len <= page; len++) {
		equals_naive(data, len);
		equals_naive(data + page - len, len);
	}
	cr_assert_eq(munmap(data - page, 3 * page), 0);
}

Test(checksum, sums_of_even_pieces_add_up)
{
	uint64_t state = rnd_seed("checksum pieces");
	uint8_t data[1000];
	uint64_t sum = 0;
	size_t at = 0;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)rnd(&state);
	while (at < sizeof(data)) {
		size_t len = 2 * (size_t)rnd_below(&state, 60);

		len = MIN(len, sizeof(data) - at);
		sum = checksum_add(sum, data + at, len);
		at += len;
	}
	cr_assert_eq(wire(sum), (uint16_t)~naive_sum(0, data, sizeof(data)));
	cr_assert_eq(wire(checksum_add_words(0, data, 40)), (uint16_t)~naive_sum(0, data, 40));
}

Test(checksum, nonzero_store_never_writes_zero)
{
	uint8_t field[2] = {1, 1};

	checksum_store_nonzero(field, 0xffff);
	cr_assert_eq(load_be16(field), 0xffff);
	checksum_store(field, 0xffff);
	cr_assert_eq(load_be16(field), 0);
}
