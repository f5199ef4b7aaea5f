/* What `sluice stats` prints of two readings, in text. One thread. */
#pragma once

#include <stdio.h>

#include "core/client/reading.h"

/* What there is room for; 0: without a limit. */
struct interval_room {
	unsigned columns, rows;
};

/*
 * What happened between the readings: the CPUs used, what limits the gateway, a row for each thread, drops, and
 * peers, the busiest first. Lines are no longer and no more than there is room for: sentences are wrapped, the
 * least useful columns left out, and what does not fit of threads, drops and peers is counted in one line each.
 * Errors of the stream stay there; -ENOMEM.
 */
int interval_print(FILE *out, const struct interval_room *room, const char *ifname,
	const struct reading *before, const struct reading *after) MUST_CHECK;
