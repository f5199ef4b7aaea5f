#include "tun/checksum.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#include "packets.h"

static uint16_t wire(uint64_t sum)
{
	uint8_t field[2];

	checksum_store(field, sum);
	return load_be16(field);
}

Test(checksum, matches_rfc_1071_example)
{
	const uint8_t data[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};

	cr_assert_eq(wire(checksum_add(0, data, sizeof(data))), (uint16_t)~0xddf2);
}

Test(checksum, every_implementation_equals_the_naive_one_at_every_length_and_alignment)
{
	uint64_t state = rnd_seed("checksum");
	static uint8_t data[2200];

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)rnd(&state);
	for (const struct checksum_impl *impl = checksum_impls; impl->name; impl++) {
		if (!impl->usable()) {
			cr_log_warn("%s: not on this CPU", impl->name);
			continue;
		}
		for (size_t len = 0; len <= 2100; len++) {
			const uint8_t *p = data + len % 67;

			cr_assert_eq(wire(impl->add(0, p, len)), (uint16_t)~naive_sum(0, p, len),
				"%s, %zu bytes", impl->name, len);
		}
	}
}

Test(checksum, lanes_do_not_overflow_at_the_longest_length)
{
	uint8_t *data = malloc(CHECKSUM_BYTES_MAX);
	static const uint8_t fill[] = {0x00, 0xff, 0x7f, 0x80};

	cr_assert(data);
	for (unsigned f = 0; f < ARRAY_LEN(fill); f++) {
		memset(data, fill[f], CHECKSUM_BYTES_MAX);
		for (const struct checksum_impl *impl = checksum_impls; impl->name; impl++)
			if (impl->usable())
				cr_assert_eq(wire(impl->add(0, data, CHECKSUM_BYTES_MAX)),
					(uint16_t)~naive_sum(0, data, CHECKSUM_BYTES_MAX), "%s of %#x",
					impl->name, fill[f]);
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
		for (const struct checksum_impl *impl = checksum_impls; impl->name; impl++)
			if (impl->usable())
				cr_assert_eq(
					wire(impl->add(0, data, len)), (uint16_t)~naive_sum(0, data, len));
		free(data);
	}
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
