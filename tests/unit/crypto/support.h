/* What the crypto tests share: hex constants, files of published vectors, a seeded generator. */
#pragma once

#include <criterion/criterion.h>
#include <stdio.h>

#include "crypto/secret.h"

/* Run in each test's process before it. */
void support_init(void);

/* Decodes hex (no separators) into out, of room for max bytes; returns how many. Fails the test otherwise. */
size_t hex(uint8_t *out, size_t max, const char *text);
#define HEX(out, text) cr_assert_eq(hex((out), sizeof(out), (text)), sizeof(out))
/* out == text, byte for byte. */
void assert_hex(const void *bytes, size_t len, const char *text, const char *what);

#define VECTOR_FIELDS_MAX 8

/* A file of tests/vectors that is being read, and the case of its current line. */
struct vector_file {
	FILE *file;
	const char *name;
	unsigned line_nr, nr_fields;
	const char *field[VECTOR_FIELDS_MAX];
	char line[4096];
};

/* Opens the file of that name; it must be there. The name is not copied. */
void vector_open(struct vector_file *v, const char *name);
/* Goes to the next case; at the end closes the file and returns false. */
bool vector_next(struct vector_file *v);
/* A field of the current case: its text, or its bytes, of which out has room for max. The field must be there. */
const char *vector_text(const struct vector_file *v, unsigned field);
size_t vector_bytes(const struct vector_file *v, unsigned field, uint8_t *out, size_t max);
/* As many bytes as the array has. */
#define VECTOR_BYTES(v, field, out)                                                                          \
	cr_assert_eq(vector_bytes((v), (field), (out), sizeof(out)), sizeof(out), "%s:%u", (v)->name,        \
		(v)->line_nr)

/* splitmix64, seeded by SLUICE_SEED or the clock; the seed is printed. */
struct random {
	uint64_t state;
};
void random_init(struct random *r, const char *test);
uint64_t random_next(struct random *r);
void random_fill(struct random *r, void *out, size_t len);
