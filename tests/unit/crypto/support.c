#include "support.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

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

void vector_open(struct vector_file *v, const char *name)
{
	char path[4096];

	*v = (struct vector_file){.name = name};
	snprintf(path, sizeof(path), SLUICE_SOURCE_ROOT "/tests/vectors/%s", name);
	v->file = fopen(path, "re");
	cr_assert_not_null(v->file, "%s", path);
}

bool vector_next(struct vector_file *v)
{
	char *rest = v->line;

	do {
		if (!fgets(v->line, sizeof(v->line), v->file)) {
			cr_assert_not(ferror(v->file), "%s", v->name);
			fclose(v->file);
			return false;
		}
		v->line_nr++;
		cr_assert_not_null(strchr(v->line, '\n'), "%s:%u: no end of line", v->name, v->line_nr);
	} while (v->line[0] == '#');
	v->line[strcspn(v->line, "\n")] = 0;
	for (v->nr_fields = 0; rest; v->nr_fields++) {
		cr_assert_lt(v->nr_fields, VECTOR_FIELDS_MAX, "%s:%u: too many fields", v->name, v->line_nr);
		v->field[v->nr_fields] = strsep(&rest, " ");
	}
	return true;
}

const char *vector_text(const struct vector_file *v, unsigned field)
{
	cr_assert_lt(field, v->nr_fields, "%s:%u: no field %u", v->name, v->line_nr, field);
	return v->field[field];
}

size_t vector_bytes(const struct vector_file *v, unsigned field, uint8_t *out, size_t max)
{
	const char *text = vector_text(v, field);

	return strcmp(text, "-") == 0 ? 0 : hex(out, max, text);
}

void random_init(struct random *r, const char *test)
{
	const char *seed = getenv("SLUICE_SEED");
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	r->state = seed ? strtoull(seed, NULL, 0) : (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
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
