/* What the crypto tests share: hex constants, the published vector files, a seeded generator. */
#pragma once

#include <criterion/criterion.h>
#include <jansson.h>

#include "crypto/secret.h"

/* Run in each test's process before it. */
void support_init(void);

/* Decodes hex (no separators) into out, of room for max bytes; returns how many. Fails the test otherwise. */
size_t hex(uint8_t *out, size_t max, const char *text);
#define HEX(out, text) cr_assert_eq(hex((out), sizeof(out), (text)), sizeof(out))
/* out == text, byte for byte. */
void assert_hex(const void *bytes, size_t len, const char *text, const char *what);

/*
 * Path of a published vector file: $SLUICE_VECTORS, else ../shared/vectors beside the source tree. Skips the
 * test, saying so, when the file is not there.
 */
const char *vector_path(const char *file);
json_t *vector_json(const char *file);
/* The bytes of a hex string member; *len is set. The caller frees. */
uint8_t *json_bytes(const json_t *object, const char *key, size_t *len);

/* splitmix64, seeded by SLUICE_SEED or the clock; the seed is printed. */
struct random {
	uint64_t state;
};
void random_init(struct random *r, const char *test);
uint64_t random_next(struct random *r);
void random_fill(struct random *r, void *out, size_t len);
