/*
 * Random bytes that are the same in every run, for fuzz targets that must behave the same for the same input:
 * what would be an ephemeral key or a nonce is a counter's bytes.
 */
#pragma once

#include <sodium.h>

static uint64_t fixed_random_state;

static const char *fixed_random_name(void)
{
	return "fixed";
}

static uint32_t fixed_random_word(void)
{
	return (uint32_t)(fixed_random_state += 0x9e3779b9);
}

static void fixed_random_fill(void *const buf, const size_t size)
{
	for (size_t i = 0; i < size; i++)
		((unsigned char *)buf)[i] = (unsigned char)(fixed_random_word() >> 24);
}

/* After secret_init(), and again with each input. */
static void fixed_random_start(uint64_t seed)
{
	static struct randombytes_implementation fixed = {.implementation_name = fixed_random_name,
		.random = fixed_random_word,
		.buf = fixed_random_fill};

	fixed_random_state = seed;
	randombytes_set_implementation(&fixed);
}
