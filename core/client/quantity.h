/* Numbers as a person reads them: `177 MB`, `0.02 s`, `12,345`. Each returns buf. Any thread. */
#pragma once

#include "ring/base.h"

#define QUANTITY_BYTES 32

/* Units of 1000, as those of bit rates are. */
const char *quantity_bytes(uint64_t n, char buf[QUANTITY_BYTES]);
/* With commas. */
const char *quantity_count(uint64_t n, char buf[QUANTITY_BYTES]);
/* A length of time, in whole seconds, minutes, hours or days. */
const char *quantity_age(uint64_t seconds, char buf[QUANTITY_BYTES]);
/* Processor time: to a hundredth of a second while that says something, then as an age. */
const char *quantity_cpu(uint64_t ns, char buf[QUANTITY_BYTES]);
