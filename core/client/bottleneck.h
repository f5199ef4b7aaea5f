/* Which stage of a running gateway limits it, told from two readings of its counters. No state. */
#pragma once

#include "core/client/reading.h"

/* Of one CPU, over the interval: from here on a thread has no time left for more. */
#define BOTTLENECK_THREAD_PERCENT 90
/* Of all CPUs, by any process. */
#define BOTTLENECK_MACHINE_PERCENT 95
/* Of the time that the CPUs were busy: with less than this of its own it is others that use them. */
#define BOTTLENECK_SHARE_PERCENT 25
/* Of one CPU, by the busiest thread: below this the gateway has next to nothing to do. */
#define BOTTLENECK_IDLE_PERCENT 1
/* Of the looks into a queue that found it more than half full: its consumer falls behind. */
#define BOTTLENECK_CROWDED_PERCENT 25

struct bottleneck {
	/*
	 * What limits the gateway: a thread's name; "machine": it needs more CPUs; "others": other work uses the
	 * CPUs; "network": what is below the sockets; "interface": it is down; "port": it is not bound; or empty.
	 */
	char stage[METRICS_GROUP_BYTES];
	char sentence[384]; /* one, plain */
};

void bottleneck_find(struct bottleneck *out, const struct reading *before, const struct reading *after);

/* CPU time of the thread in the interval, in percent of one CPU; of the machine, of all its CPUs. */
double bottleneck_thread_percent(
	const struct reading *before, const struct reading *after, const char *thread);
double bottleneck_machine_percent(const struct reading *before, const struct reading *after);
