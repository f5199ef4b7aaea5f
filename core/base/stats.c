#include "core/base/stats.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define BUCKET_SUFFIX_BYTES sizeof(".le_4294967295")

/* Exactly one of the last three is there; arg goes with read. */
struct stats_entry {
	char group[STATS_GROUP_BYTES];
	const char *name;
	const counter_t *counter;
	const struct histogram *histogram;
	uint64_t (*read)(const void *arg);
	const void *arg;
};

struct stats {
	struct stats_entry *entries;
	unsigned nr, capacity;
};

static int add(struct stats *s, const char *group, struct stats_entry entry);
static void each_bucket(const struct stats_entry *e,
	void (*fn)(void *arg, const char *group, const char *name, uint64_t value), void *arg);

int stats_new(struct stats **out)
{
	struct stats *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	*out = s;
	return 0;
}

void stats_free(struct stats *s)
{
	if (!s)
		return;
	free(s->entries);
	free(s);
}

int stats_add(struct stats *s, const char *group, const char *name, const counter_t *counter)
{
	return add(s, group, (struct stats_entry){.name = name, .counter = counter});
}

int stats_add_histogram(
	struct stats *s, const char *group, const char *name, const struct histogram *histogram)
{
	return add(s, group, (struct stats_entry){.name = name, .histogram = histogram});
}

int stats_add_gauge(struct stats *s, const char *group, const char *name, uint64_t (*read)(const void *arg),
	const void *arg)
{
	return add(s, group, (struct stats_entry){.name = name, .read = read, .arg = arg});
}

void stats_clear(struct stats *s)
{
	s->nr = 0;
}

void stats_each(const struct stats *s,
	void (*fn)(void *arg, const char *group, const char *name, uint64_t value), void *arg)
{
	for (unsigned i = 0; i < s->nr; i++) {
		const struct stats_entry *e = &s->entries[i];

		if (e->counter)
			fn(arg, e->group, e->name, counter_read(e->counter));
		else if (e->histogram)
			each_bucket(e, fn, arg);
		else
			fn(arg, e->group, e->name, e->read(e->arg));
	}
}

static int add(struct stats *s, const char *group, struct stats_entry entry)
{
	const size_t len = strlen(group), name_len = strlen(entry.name);

	if (len == 0 || len >= STATS_GROUP_BYTES || name_len == 0 ||
		name_len + BUCKET_SUFFIX_BYTES > STATS_NAME_BYTES)
		return -EINVAL;
	if (s->nr == s->capacity) {
		unsigned capacity = s->capacity ? 2 * s->capacity : 128;
		struct stats_entry *entries = reallocarray(s->entries, capacity, sizeof(*entries));

		if (!entries)
			return -ENOMEM;
		s->entries = entries;
		s->capacity = capacity;
	}
	memcpy(entry.group, group, len + 1);
	s->entries[s->nr++] = entry;
	return 0;
}

static void each_bucket(const struct stats_entry *e,
	void (*fn)(void *arg, const char *group, const char *name, uint64_t value), void *arg)
{
	char name[STATS_NAME_BYTES];

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		if (i == HISTOGRAM_BUCKETS - 1)
			snprintf(name, sizeof(name), "%s.le_inf", e->name);
		else
			snprintf(name, sizeof(name), "%s.le_%u", e->name, histogram_bound(i));
		fn(arg, e->group, name, counter_read(&e->histogram->bucket[i]));
	}
}
