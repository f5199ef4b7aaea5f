#include "ring/number.h"

#include <criterion/criterion.h>
#include <errno.h>

static bool parses(const char *text, uint64_t min, uint64_t max, uint64_t want)
{
	uint64_t number = 4711;

	return number_parse(&number, text, strlen(text), min, max) == 0 && number == want;
}

static bool refuses(const char *text, uint64_t min, uint64_t max)
{
	uint64_t number = 4711;

	return number_parse(&number, text, strlen(text), min, max) == -EINVAL && number == 4711;
}

Test(number, takes_digits_within_its_bounds)
{
	cr_assert(parses("0", 0, 0, 0));
	cr_assert(parses("0042", 0, 65535, 42));
	cr_assert(parses("65535", 0, 65535, 65535));
	cr_assert(parses("1", 1, 64, 1));
	cr_assert(parses("18446744073709551615", 0, UINT64_MAX, UINT64_MAX));
	cr_assert(parses("000000000000000000000000000007", 7, 7, 7));
}

Test(number, refuses_all_else_and_leaves_its_result)
{
	static const char *const wrong[] = {
		"", " ", "-1", "+1", " 1", "1 ", "0x1", "1.0", "1e3", "inf", "\xb9", ":", "/"};

	for (unsigned i = 0; i < ARRAY_LEN(wrong); i++)
		cr_assert(refuses(wrong[i], 0, UINT64_MAX), "\"%s\"", wrong[i]);
	cr_assert(refuses("65536", 0, 65535));
	cr_assert(refuses("1", 0, 0));
	cr_assert(refuses("0", 1, 64));
	cr_assert(refuses("18446744073709551616", 0, UINT64_MAX));
	cr_assert(refuses("99999999999999999999", 0, UINT64_MAX));
	cr_assert(refuses("184467440737095516150", 0, UINT64_MAX));
}

Test(number, looks_no_further_than_len)
{
	uint64_t number;

	cr_assert_eq(number_parse(&number, "123/24", 3, 0, 255), 0);
	cr_assert_eq(number, 123);
}
