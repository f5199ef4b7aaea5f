#include "core/base/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/array.h"

#define BUCKET_SUFFIX_BYTES sizeof(".le_4294967295")

/* Where one value comes from. Exactly one of the last three is there; arg goes with read. */
struct source {
	enum metrics_group group;
	unsigned index;
	unsigned place; /* among the metrics of the group */
	enum metric metric;
	const counter_t *value;
	const struct histogram *histogram;
	uint64_t (*read)(const void *arg);
	const void *arg;
};

struct metrics {
	struct source *sources;
	unsigned nr, capacity;
	bool sorted;
	int err;
};

#define CHECK_NAME(a, id, field, name, ...)                                                                  \
	_Static_assert(sizeof(name) - 1 + BUCKET_SUFFIX_BYTES <= METRICS_NAME_BYTES, name " is too long");
METRICS_ALL(CHECK_NAME, )

static const struct metric_info infos[METRIC_COUNT] = {
#define INFO(a, id, field, name_, kind_, unit_, writer_, help_, ...)                                         \
	[METRIC_##id] = {.name = (name_),                                                                    \
		.unit = (unit_),                                                                             \
		.help = (help_),                                                                             \
		.kind = METRIC_KIND_##kind_,                                                                 \
		.writer = METRIC_WRITER_##writer_},
	METRICS_ALL(INFO, )};

#define SHOWN(id, name, thread, numbered)                                                                    \
	static const enum metric shown_##id[] = {METRICS_OF_##id(METRICS_ID, )};
METRICS_GROUPS(SHOWN)

static const struct metrics_group_info groups[METRICS_GROUP_COUNT] = {
#define GROUP(id, name_, is_thread_, numbered_)                                                              \
	[METRICS_GROUP_##id] = {.name = (name_),                                                             \
		.is_thread = (is_thread_),                                                                   \
		.numbered = (numbered_),                                                                     \
		.metrics = shown_##id,                                                                       \
		.nr = ARRAY_LEN(shown_##id)},
	METRICS_GROUPS(GROUP)};

static void add(struct metrics *m, struct source source);
static int compare(const void *a, const void *b);
static void show(const struct source *first, const struct source *end,
	void (*fn)(void *arg, const char *group, const char *name, uint64_t value), void *arg);
static uint64_t sum(const struct source *first, const struct source *end, unsigned bucket);

const struct metric_info *metric_info(enum metric metric)
{
	CHECK(metric < METRIC_COUNT);
	return &infos[metric];
}

const struct metrics_group_info *metrics_group_info(enum metrics_group group)
{
	CHECK(group < METRICS_GROUP_COUNT);
	return &groups[group];
}

int metrics_new(struct metrics **out)
{
	struct metrics *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	*out = m;
	return 0;
}

void metrics_free(struct metrics *m)
{
	if (!m)
		return;
	array_free(m->sources, m->capacity, sizeof(*m->sources));
	free(m);
}

void metrics_add_value(struct metrics *m, enum metrics_group group, unsigned index, enum metric metric,
	const counter_t *value)
{
	add(m, (struct source){.group = group, .index = index, .metric = metric, .value = value});
}

void metrics_add_histogram(struct metrics *m, enum metrics_group group, unsigned index, enum metric metric,
	const struct histogram *histogram)
{
	add(m, (struct source){.group = group, .index = index, .metric = metric, .histogram = histogram});
}

void metrics_add_read(struct metrics *m, enum metrics_group group, unsigned index, enum metric metric,
	uint64_t (*read)(const void *arg), const void *arg)
{
	add(m, (struct source){.group = group, .index = index, .metric = metric, .read = read, .arg = arg});
}

int metrics_status(const struct metrics *m)
{
	return m ? m->err : 0;
}

void metrics_clear(struct metrics *m)
{
	m->nr = 0;
	m->err = 0;
}

void metrics_each(struct metrics *m,
	void (*fn)(void *arg, const char *group, const char *name, uint64_t value), void *arg)
{
	if (!m->nr)
		return; /* there is no array yet */
	if (!m->sorted)
		qsort(m->sources, m->nr, sizeof(*m->sources), compare);
	m->sorted = true;

	const struct source *const last = m->sources + m->nr, *end;
	for (const struct source *s = m->sources; s != last; s = end) {
		for (end = s + 1; end != last && !compare(s, end); end++)
			;
		show(s, end, fn, arg);
	}
}

static void add(struct metrics *m, struct source source)
{
	const struct metrics_group_info *group = metrics_group_info(source.group);
	const bool is_histogram = metric_info(source.metric)->kind == METRIC_KIND_HISTOGRAM;
	int err;

	if (!m || m->err)
		return;
	while (source.place < group->nr && group->metrics[source.place] != source.metric)
		source.place++;
	if (source.place == group->nr || is_histogram != !!source.histogram ||
		(source.index && !group->numbered)) {
		m->err = -EINVAL;
		return;
	}
	err = array_grow(&m->sources, &m->capacity, m->nr + 1, sizeof(*m->sources));
	if (err) {
		m->err = err;
		return;
	}
	m->sources[m->nr++] = source;
	m->sorted = false;
}

static int compare(const void *a, const void *b)
{
	const struct source *x = a, *y = b;

	if (x->group != y->group)
		return x->group < y->group ? -1 : 1;
	if (x->index != y->index)
		return x->index < y->index ? -1 : 1;
	return (x->place > y->place) - (x->place < y->place);
}

/* first to end: all sources of one metric of one group. */
static void show(const struct source *first, const struct source *end,
	void (*fn)(void *arg, const char *group, const char *name, uint64_t value), void *arg)
{
	const struct metrics_group_info *g = metrics_group_info(first->group);
	const struct metric_info *info = metric_info(first->metric);
	char group[METRICS_GROUP_BYTES], name[METRICS_NAME_BYTES];

	if (g->numbered)
		snprintf(group, sizeof(group), "%s%u", g->name, first->index);
	else
		snprintf(group, sizeof(group), "%s", g->name);
	if (info->kind != METRIC_KIND_HISTOGRAM) {
		fn(arg, group, info->name, sum(first, end, 0));
		return;
	}
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		if (i == HISTOGRAM_BUCKETS - 1)
			snprintf(name, sizeof(name), "%s.le_inf", info->name);
		else
			snprintf(name, sizeof(name), "%s.le_%u", info->name, histogram_bound(i));
		fn(arg, group, name, sum(first, end, i));
	}
}

static uint64_t sum(const struct source *first, const struct source *end, unsigned bucket)
{
	uint64_t total = 0;

	for (const struct source *s = first; s != end; s++) {
		if (s->value)
			total += counter_read(s->value);
		else if (s->histogram)
			total += counter_read(&s->histogram->bucket[bucket]);
		else
			total += s->read(s->arg);
	}
	return total;
}
