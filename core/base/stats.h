/*
 * The registry of counters: each thread's counters live with the thread that writes them; this holds their
 * names and addresses, so that any reader can print all of them. Registered on the control thread while
 * starting, read on the control thread.
 */
#pragma once

#include "ring/base.h"
#include "ring/histogram.h"

#define STATS_GROUP_BYTES 24 /* longest group name with its zero byte */
#define STATS_NAME_BYTES 48  /* longest name with its zero byte, ".le_inf" included */

struct stats;

int stats_new(struct stats **out) MUST_CHECK; /* -ENOMEM */
void stats_free(struct stats *s);
/*
 * group: thread name such as "tun-rx0", copied; name: static string without blanks, '=' or '.'. The counter
 * outlives the registry's last read. The same group and name may be given several times: whoever shows them
 * adds them up. -ENOMEM, -EINVAL for a name that is empty or too long.
 */
int stats_add(struct stats *s, const char *group, const char *name, const counter_t *counter) MUST_CHECK;
/*
 * The same of a histogram, which is shown as a value for each bucket, "NAME.le_BOUND": how many values were
 * at most BOUND ("inf": any) and above the bound before it. The buckets add up to the number of values.
 */
int stats_add_histogram(
	struct stats *s, const char *group, const char *name, const struct histogram *histogram) MUST_CHECK;
/* The same of a value that is found out when it is read, by read(arg), on the reading thread. */
int stats_add_gauge(struct stats *s, const char *group, const char *name, uint64_t (*read)(const void *arg),
	const void *arg) MUST_CHECK;
/* Forgets all counters of groups: before their threads are freed. */
void stats_clear(struct stats *s);
/* Calls fn in order of registration. */
void stats_each(const struct stats *s,
	void (*fn)(void *arg, const char *group, const char *name, uint64_t value), void *arg);
