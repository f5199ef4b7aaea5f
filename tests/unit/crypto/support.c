#include "support.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#ifndef SLUICE_SOURCE_ROOT
#error "the build tells where the source tree is"
#endif

void support_init(void)
{
	cr_assert_eq(secret_init(), 0);
}

size_t hex(uint8_t *out, size_t max, const char *text)
{
	size_t len = strlen(text) / 2;

	cr_assert_eq(strlen(text) % 2, 0, "odd hex: %s", text);
	cr_assert_leq(len, max, "hex too long: %s", text);
	for (size_t i = 0; i < len; i++) {
		char digits[3] = {text[2 * i], text[2 * i + 1], 0};
		char *end;

		out[i] = (uint8_t)strtoul(digits, &end, 16);
		cr_assert_eq(*end, 0, "bad hex: %s", text);
	}
	return len;
}

void assert_hex(const void *bytes, size_t len, const char *text, const char *what)
{
	char got[8192];

	cr_assert_lt(2 * len, sizeof(got));
	got[0] = 0;
	for (size_t i = 0; i < len; i++)
		sprintf(got + 2 * i, "%02x", ((const uint8_t *)bytes)[i]);
	cr_assert_str_eq(got, text, "%s", what);
}

const char *vector_path(const char *file)
{
	static char path[4096];
	const char *dir = getenv("SLUICE_VECTORS");

	snprintf(path, sizeof(path), "%s/%s", dir != NULL ? dir : SLUICE_SOURCE_ROOT "/../shared/vectors",
		file);
	if (access(path, R_OK) != 0) {
		fprintf(stderr, "SKIP: no vector file %s (set SLUICE_VECTORS)\n", path);
		cr_skip("no vector file %s", path);
	}
	return path;
}

json_t *vector_json(const char *file)
{
	json_error_t error;
	json_t *json = json_load_file(vector_path(file), 0, &error);

	cr_assert_not_null(json, "%s: line %d: %s", file, error.line, error.text);
	return json;
}

uint8_t *json_bytes(const json_t *object, const char *key, size_t *len)
{
	const char *text = json_string_value(json_object_get(object, key));
	uint8_t *bytes;

	cr_assert_not_null(text, "no member %s", key);
	bytes = malloc(strlen(text) / 2 + 1);
	cr_assert_not_null(bytes);
	*len = hex(bytes, strlen(text) / 2, text);
	return bytes;
}

void random_init(struct random *r, const char *test)
{
	const char *seed = getenv("SLUICE_SEED");
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	r->state = seed != NULL ? strtoull(seed, NULL, 0)
				: (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
	fprintf(stderr, "%s: SLUICE_SEED=%" PRIu64 "\n", test, r->state);
}

uint64_t random_next(struct random *r)
{
	uint64_t z = (r->state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

void random_fill(struct random *r, void *out, size_t len)
{
	uint8_t *bytes = out;

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)random_next(r);
}
