#include "ring/number.h"

#include <errno.h>

int number_parse(uint64_t *out, const char *text, size_t len, uint64_t min, uint64_t max)
{
	uint64_t number = 0;

	if (len == 0)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		const uint64_t digit = (uint64_t)text[i] - '0';

		/* In this order, so that a max of UINT64_MAX does not wrap. */
		if (text[i] < '0' || text[i] > '9' || digit > max || number > (max - digit) / 10)
			return -EINVAL;
		number = number * 10 + digit;
	}
	if (number < min)
		return -EINVAL;
	*out = number;
	return 0;
}
