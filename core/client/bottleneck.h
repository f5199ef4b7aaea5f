/* Which stage of a running gateway limits it, told from two readings of its counters. No state. */
#pragma once

#include "core/client/reading.h"

/* Of one CPU, over the interval: from here on a thread has no time left for more. */
#define BOTTLENECK_THREAD_PERCENT 90
/* Of all CPUs, by any process. */
#define BOTTLENECK_MACHINE_PERCENT 95
/* Of the looks into a queue that found it more than half full: its consumer falls behind. */
#define BOTTLENECK_CROWDED_PERCENT 25

struct bottleneck {
	/* A thread's name; or "machine": its CPUs; or "network": what is below the sockets; empty: none. */
	char stage[METRICS_GROUP_BYTES];
	char sentence[384]; /* one, plain */
};

void bottleneck_find(struct bottleneck *out, const struct reading *before, const struct reading *after);

/* CPU time of the thread in the interval, in percent of one CPU; of the machine, of all its CPUs. */
double bottleneck_thread_percent(
	const struct reading *before, const struct reading *after, const char *thread);
double bottleneck_machine_percent(const struct reading *before, const struct reading *after);
