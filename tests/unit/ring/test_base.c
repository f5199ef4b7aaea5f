#include "ring/base.h"

#include <criterion/criterion.h>

Test(base, reads_and_writes_network_order_at_odd_addresses)
{
	const uint8_t want[] = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08};
	uint8_t bytes[16] = {0};
	uint8_t *at = bytes + 1;

	store_be64(at, UINT64_C(0x0102030405060708));
	cr_assert_arr_eq(at, want, 8);
	cr_assert_eq(load_be16(at), 0x0102);
	cr_assert_eq(load_be32(at), 0x01020304u);
	cr_assert_eq(load_be64(at), UINT64_C(0x0102030405060708));

	memset(bytes, 0, sizeof(bytes));
	store_be32(at, 0x01020304u);
	cr_assert_arr_eq(at, want, 4);
	cr_assert_eq(at[4], 0, "store_be32 wrote more than four bytes");

	memset(bytes, 0, sizeof(bytes));
	store_be16(at, 0x0102);
	cr_assert_arr_eq(at, want, 2);
	cr_assert_eq(at[2], 0, "store_be16 wrote more than two bytes");
}

Test(base, reads_and_writes_little_endian_at_odd_addresses)
{
	const uint8_t want[] = {0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01};
	uint8_t bytes[16] = {0};
	uint8_t *at = bytes + 1;

	store_le64(at, UINT64_C(0x0102030405060708));
	cr_assert_arr_eq(at, want, 8);
	cr_assert_eq(load_le64(at), UINT64_C(0x0102030405060708));
	cr_assert_eq(load_le32(at), 0x05060708u);

	memset(bytes, 0, sizeof(bytes));
	store_le32(at, 0x05060708u);
	cr_assert_arr_eq(at, want, 4);
	cr_assert_eq(at[4], 0, "store_le32 wrote more than four bytes");
}

Test(base, rounds_up_to_the_next_multiple_and_keeps_a_multiple)
{
	cr_assert_eq(ALIGN_UP(0u, 16), 0);
	cr_assert_eq(ALIGN_UP(1u, 16), 16);
	cr_assert_eq(ALIGN_UP(16u, 16), 16);
	cr_assert_eq(ALIGN_UP(17u, 16), 32);
	cr_assert_eq(
		ALIGN_UP((size_t)UINT32_MAX, 64), (size_t)UINT32_MAX + 1, "the type of the value was lost");
}

Test(base, counter_adds_beyond_32_bits)
{
	counter_t c = 0;

	counter_add(&c, UINT32_MAX);
	counter_add(&c, 2);
	cr_assert_eq(counter_read(&c), (uint64_t)UINT32_MAX + 2);
}
