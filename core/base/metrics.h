/*
 * The metrics of the program. What they are stands in core/base/metrics_table.h; each thread's counters live with the
 * thread that writes them; struct metrics holds where, so that any reader can print all of them. Registered and read
 * on the control thread.
 */
#pragma once

#include "core/base/drops.h"
#include "core/base/metrics_table.h"
#include "ring/base.h"
#include "ring/channel.h"
#include "ring/histogram.h"
#include "ring/park.h"
#include "ring/pool.h"
#include "tun/tun.h"
#include "udp/gso_queue.h"
#include "udp/receive.h"
#include "udp/send.h"

#define METRICS_GROUP_BYTES 24 /* longest group name, numbered, with its zero byte */
#define METRICS_NAME_BYTES 48  /* longest name with its zero byte, ".le_inf" included */

enum metric {
#define METRICS_ID(a, id, ...) METRIC_##id,
	METRICS_ALL(METRICS_ID, ) METRIC_COUNT
};

enum metrics_group {
#define METRICS_GROUP_ID(id, name, thread, numbered) METRICS_GROUP_##id,
	METRICS_GROUPS(METRICS_GROUP_ID) METRICS_GROUP_COUNT
};

enum metric_kind { METRIC_KIND_COUNTER, METRIC_KIND_GAUGE, METRIC_KIND_HISTOGRAM };

enum metric_writer {
	METRIC_WRITER_OWNER,
	METRIC_WRITER_HOLDER,
	METRIC_WRITER_UDP_RX,
	METRIC_WRITER_PRODUCERS,
	METRIC_WRITER_ANYBODY,
	METRIC_WRITER_READER,
};

struct metric_info {
	const char *name, *unit, *help;
	enum metric_kind kind;
	enum metric_writer writer;
};

struct metrics_group_info {
	const char *name;           /* without a number */
	bool is_thread;             /* or "process", or "drops" */
	bool numbered;              /* there are several: tun-rx0, tun-rx1 */
	const enum metric *metrics; /* in the order in which they are shown */
	unsigned nr;
};

/* Any thread; constant. */
const struct metric_info *metric_info(enum metric metric);
const struct metrics_group_info *metrics_group_info(enum metrics_group group);

static inline const char *metric_name(enum metric metric)
{
	return metric_info(metric)->name;
}

/* Without a number. */
static inline const char *metrics_group_name(enum metrics_group group)
{
	return metrics_group_info(group)->name;
}

struct metrics;

int metrics_new(struct metrics **out) MUST_CHECK; /* -ENOMEM */
void metrics_free(struct metrics *m);             /* NULL is accepted */
/*
 * Registration. m NULL: nothing is registered. group and index say whose metric it is; index is 0 for a group that is
 * not numbered. Whatever is pointed to outlives the last read. Where a group's metric is registered several times, the
 * sum is shown. What goes wrong is kept for metrics_status().
 */
void metrics_add_value(struct metrics *m, enum metrics_group group, unsigned index, enum metric metric,
	const counter_t *value);
void metrics_add_histogram(struct metrics *m, enum metrics_group group, unsigned index, enum metric metric,
	const struct histogram *histogram);
/* The value is found out when it is read, by read(arg), on the reading thread. */
void metrics_add_read(struct metrics *m, enum metrics_group group, unsigned index, enum metric metric,
	uint64_t (*read)(const void *arg), const void *arg);
/* 0, or the first that went wrong: -ENOMEM, -EINVAL for a metric that its group does not show. */
int metrics_status(const struct metrics *m) MUST_CHECK;
/* Forgets all that is registered: before the threads are freed. */
void metrics_clear(struct metrics *m);
/*
 * Calls fn for each value, groups and metrics in the order of the table, numbers rising, however they were registered.
 * A histogram gives a value for each bucket, named "NAME.le_BOUND": how many were at most BOUND ("inf": any) and above
 * the bound before it. The buckets add up to the number of values.
 */
void metrics_each(struct metrics *m,
	void (*fn)(void *arg, const char *group, const char *name, uint64_t value), void *arg);

/*
 * Defines `void fn(struct metrics *, enum metrics_group, unsigned index, const TYPE *)`, which registers all counters
 * of the structure TYPE: those that LIST of the table names. A counter that LIST does not name does not compile.
 */
#define METRICS_DEFINE_ADD(fn, TYPE, LIST)                                                                   \
	void fn(struct metrics *m, enum metrics_group group, unsigned index, const TYPE *counters)           \
	{                                                                                                    \
		_Static_assert(sizeof(TYPE) == 0 LIST(METRICS_SIZE_OF, TYPE),                                \
			"a counter of " #TYPE " is not in " #LIST " of core/base/metrics_table.h");          \
		LIST(METRICS_ADD_FIELD, counters)                                                            \
	}
/* The same of some of them, which are shown a second time. */
#define METRICS_DEFINE_ADD_SOME(fn, TYPE, LIST)                                                              \
	void fn(struct metrics *m, enum metrics_group group, unsigned index, const TYPE *counters)           \
	{                                                                                                    \
		LIST(METRICS_ADD_FIELD, counters)                                                            \
	}
#define METRICS_SIZE_OF(TYPE, id, field, ...) +sizeof(((TYPE *)0)->field)
#define METRICS_ADD_FIELD(counters, id, field, name, kind, ...)                                              \
	METRICS_ADD_##kind(m, group, index, METRIC_##id, &(counters)->field);
#define METRICS_ADD_COUNTER metrics_add_value
#define METRICS_ADD_GAUGE metrics_add_value
#define METRICS_ADD_HISTOGRAM metrics_add_histogram

/* Of base/ and the layers below; see metrics_add_value(). A thread's own are defined with its counters. */
void metrics_add_park(
	struct metrics *m, enum metrics_group group, unsigned index, const struct park_counters *counters);
void metrics_add_queue(
	struct metrics *m, enum metrics_group group, unsigned index, const struct channel *queue);
void metrics_add_pool(struct metrics *m, enum metrics_group group, unsigned index, enum metric in_use,
	enum metric capacity, const struct pool *pool);
void metrics_add_gso_queue(struct metrics *m, enum metrics_group group, unsigned index,
	const struct gso_queue_counters *counters);
/* As metrics of the group, and as drops. */
void metrics_add_tun_read(struct metrics *m, enum metrics_group group, unsigned index,
	const struct tun_read_counters *counters);
void metrics_add_tun_write(struct metrics *m, enum metrics_group group, unsigned index,
	const struct tun_write_counters *counters);
void metrics_add_udp_tx(
	struct metrics *m, enum metrics_group group, unsigned index, const struct udp_tx_counters *counters);
void metrics_add_udp_rx(
	struct metrics *m, enum metrics_group group, unsigned index, const struct udp_rx_counters *counters);
/* As drops only. */
void metrics_add_drops(struct metrics *m, const struct drops *drops);
/* The clock, and the processor time of the process and of the thread that reads. */
void metrics_add_process(struct metrics *m);
