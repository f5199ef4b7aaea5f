#include "core/stats.h"

#include <errno.h>
#include <stdlib.h>

struct stats_entry {
	char group[STATS_GROUP_BYTES];
	const char *name;
	const counter_t *counter;
};

struct stats {
	struct stats_entry *entries;
	unsigned nr, capacity;
};

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
	size_t len = strlen(group);

	if (len == 0 || len >= STATS_GROUP_BYTES)
		return -EINVAL;
	if (s->nr == s->capacity) {
		unsigned capacity = s->capacity ? 2 * s->capacity : 128;
		struct stats_entry *entries = reallocarray(s->entries, capacity, sizeof(*entries));

		if (!entries)
			return -ENOMEM;
		s->entries = entries;
		s->capacity = capacity;
	}
	memcpy(s->entries[s->nr].group, group, len + 1);
	s->entries[s->nr].name = name;
	s->entries[s->nr].counter = counter;
	s->nr++;
	return 0;
}

void stats_clear(struct stats *s)
{
	s->nr = 0;
}

void stats_each(const struct stats *s,
	void (*fn)(void *arg, const char *group, const char *name, uint64_t value), void *arg)
{
	for (unsigned i = 0; i < s->nr; i++)
		fn(arg, s->entries[i].group, s->entries[i].name, counter_read(s->entries[i].counter));
}
