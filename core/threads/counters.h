/* What the threads' *_register() functions share. Each stops at the first error, which it hands on. */
#pragma once

#include "core/base/drops.h"
#include "core/base/stats.h"
#include "ring/channel.h"
#include "ring/park.h"
#include "ring/pool.h"

#define COUNT(group, object, field) err = err ? err : stats_add(s, group, #field, &(object)->field)
#define COUNT_HISTOGRAM(group, object, field)                                                                \
	err = err ? err : stats_add_histogram(s, group, #field, &(object)->field)
#define GAUGE(group, name, read, arg) err = err ? err : stats_add_gauge(s, group, name, read, arg)

int counters_add_drops(struct stats *s, const struct drops *d, int err) MUST_CHECK;
int counters_add_park(struct stats *s, const char *group, const struct park *park, int err) MUST_CHECK;
int counters_add_channel(struct stats *s, const char *group, const struct channel *ch, int err) MUST_CHECK;
uint64_t counters_read_pool_in_use(const void *pool);
uint64_t counters_read_pool_count(const void *pool);
/* Of the process, and of the control thread, which is the one that reads. */
int counters_add_process(struct stats *s) MUST_CHECK;
