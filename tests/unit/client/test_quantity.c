#include "core/client/quantity.h"

#include <criterion/criterion.h>

Test(quantity, bytes_have_three_digits)
{
	static const struct {
		uint64_t n;
		const char *text;
	} of[] = {{0, "0 B"}, {999, "999 B"}, {1000, "1.00 kB"}, {9994, "9.99 kB"}, {9995, "10.0 kB"},
		{99949, "99.9 kB"}, {99950, "100 kB"}, {999499, "999 kB"}, {999500, "1.00 MB"},
		{177000000, "177 MB"}, {UINT64_MAX, "18.4 EB"}};
	char buf[QUANTITY_BYTES];

	for (unsigned i = 0; i < ARRAY_LEN(of); i++)
		cr_expect_str_eq(quantity_bytes(of[i].n, buf), of[i].text, "%s, not %s", buf, of[i].text);
}

Test(quantity, counts_have_commas)
{
	char buf[QUANTITY_BYTES];

	cr_expect_str_eq(quantity_count(0, buf), "0");
	cr_expect_str_eq(quantity_count(999, buf), "999");
	cr_expect_str_eq(quantity_count(1000, buf), "1,000");
	cr_expect_str_eq(quantity_count(123456, buf), "123,456");
	cr_expect_str_eq(quantity_count(UINT64_MAX, buf), "18,446,744,073,709,551,615");
}

Test(quantity, times_have_one_unit)
{
	char buf[QUANTITY_BYTES];

	cr_expect_str_eq(quantity_age(119, buf), "119 s");
	cr_expect_str_eq(quantity_age(120, buf), "2 min");
	cr_expect_str_eq(quantity_age(2 * 3600, buf), "2 h");
	cr_expect_str_eq(quantity_age(2 * 86400, buf), "2 days");
	cr_expect_str_eq(quantity_cpu(20 * NS_PER_MS, buf), "0.02 s");
	cr_expect_str_eq(quantity_cpu(119990 * NS_PER_MS, buf), "119.99 s");
	cr_expect_str_eq(quantity_cpu(120 * NS_PER_SEC, buf), "2 min");
}
