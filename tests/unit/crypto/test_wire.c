#include "support.h"

#include "crypto/wire.h"

/*
 * Exhaustive: every length up to past the longest handshake message, with each type word around the valid
 * ones.
 */
Test(wire, classifies_by_type_word_and_length)
{
	uint8_t datagram[200] = {0};

	for (uint32_t type = 0; type < 8; type++) {
		for (size_t len = 0; len <= sizeof(datagram); len++) {
			enum wire_type expected = 0;

			if ((type == 1 && len == 148) || (type == 2 && len == 92) ||
				(type == 3 && len == 64) || (type == 4 && len >= 32))
				expected = type;
			store_le32(datagram, type);
			cr_assert_eq(wire_classify(datagram, len), expected, "type %u len %zu", type, len);
		}
	}
}

Test(wire, reserved_bytes_must_be_zero)
{
	static const size_t len[] = {0, 148, 92, 64, 1000};
	uint8_t datagram[1000] = {0};

	for (uint32_t type = 1; type <= 4; type++) {
		for (unsigned bit = 8; bit < 32; bit++) {
			store_le32(datagram, type | 1u << bit);
			cr_assert_eq(wire_classify(datagram, len[type]), 0);
		}
	}
}

Test(wire, never_reads_a_type_that_is_not_there)
{
	for (size_t len = 0; len < 4; len++)
		cr_assert_eq(wire_classify(NULL, len), 0);
}

Test(wire, data_header_is_little_endian)
{
	uint8_t header[WIRE_DATA_HEADER_BYTES];

	wire_data_header(header, UINT32_C(0x01020304), UINT64_C(0x1112131415161718));
	assert_hex(header, sizeof(header), "04000000040302011817161514131211", "data header");
}
