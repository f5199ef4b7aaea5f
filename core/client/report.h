/* What `sluice stats` prints of one reading, or of two. Text is written to the stream; its errors stay there.
 */
#pragma once

#include <stdio.h>

#include "core/client/reading.h"

/* All there is since the start: a block for each thread, the drops that happened, the peers as wg(8) does. */
void report_totals(FILE *out, const struct reading *r);
/* What happened between two readings: a row for each thread, the limiting stage, drops, peers. */
void report_interval(
	FILE *out, const char *ifname, const struct reading *before, const struct reading *after);
/*
 * One object, on one line if compact. before NULL: totals only; else also the rates of the interval and the
 * limiting stage. -ENOMEM, -EIO.
 */
int report_json(FILE *out, const char *ifname, const struct reading *before, const struct reading *after,
	bool compact) MUST_CHECK;
