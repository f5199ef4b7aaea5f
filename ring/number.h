/* Numbers as options, addresses, the control protocol and its answers write them. No state. */
#pragma once

#include "ring/base.h"

/*
 * The number that all len characters of text make, min..max. Digits only: no sign, no blank, no other base. -EINVAL
 * for anything else, which leaves *out as it is.
 */
int number_parse(uint64_t *out, const char *text, size_t len, uint64_t min, uint64_t max) MUST_CHECK;
