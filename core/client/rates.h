/* What a thread did in a second, worked out from two readings. No state; any thread. */
#pragma once

#include "core/client/reading.h"

/* All but the first are zero for a thread whose work is not packets; CPU use is a share of one CPU. */
struct rates {
	double cpu_percent, packets, bits, trains, packets_per_train, syscalls, wakes, wakes_given, parks;
};

struct rates rates_find(const struct reading *before, const struct reading *after, const char *thread);
/* Since the start: all that the thread's work took, even what another did in its place. */
uint64_t rates_syscalls(const struct reading *r, const char *thread);
