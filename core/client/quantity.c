#include "core/client/quantity.h"

#include <inttypes.h>
#include <stdio.h>

#define AGE_IN_SECONDS 120 /* below this minutes would say too little */

const char *quantity_bytes(uint64_t n, char buf[QUANTITY_BYTES])
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
	double value = (double)n;
	unsigned unit = 0;

	/* What would be rounded to four digits is shown in the next unit. */
	for (; value >= 999.5 && unit < ARRAY_LEN(units) - 1; unit++)
		value /= 1000;
	/* Three digits are enough, and bytes are whole. */
	const int decimals = unit == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;

	snprintf(buf, QUANTITY_BYTES, "%.*f %s", decimals, value, units[unit]);
	return buf;
}

const char *quantity_count(uint64_t n, char buf[QUANTITY_BYTES])
{
	char digits[QUANTITY_BYTES];
	const int len = snprintf(digits, sizeof(digits), "%" PRIu64, n);
	char *to = buf;

	for (int i = 0; i < len; i++) {
		if (i && (len - i) % 3 == 0)
			*to++ = ',';
		*to++ = digits[i];
	}
	*to = '\0';
	return buf;
}

const char *quantity_age(uint64_t seconds, char buf[QUANTITY_BYTES])
{
	if (seconds < AGE_IN_SECONDS)
		snprintf(buf, QUANTITY_BYTES, "%" PRIu64 " s", seconds);
	else if (seconds < 2 * 3600)
		snprintf(buf, QUANTITY_BYTES, "%" PRIu64 " min", seconds / 60);
	else if (seconds < 2 * 86400)
		snprintf(buf, QUANTITY_BYTES, "%" PRIu64 " h", seconds / 3600);
	else
		snprintf(buf, QUANTITY_BYTES, "%" PRIu64 " days", seconds / 86400);
	return buf;
}

const char *quantity_cpu(uint64_t ns, char buf[QUANTITY_BYTES])
{
	if (ns >= AGE_IN_SECONDS * NS_PER_SEC)
		return quantity_age(ns / NS_PER_SEC, buf);
	snprintf(buf, QUANTITY_BYTES, "%.2f s", (double)ns / (double)NS_PER_SEC);
	return buf;
}
