/*
 * What `sluice stats` prints of one reading, and its JSON; core/client/interval.h has the text of two. Text is
 * written to the stream; its errors stay there.
 */
#pragma once

#include <stdio.h>

#include "core/client/reading.h"

/* All there is since the start: a block for each thread, the drops that happened, the peers as wg(8) does. */
void report_totals(FILE *out, const struct reading *r);
/*
 * One object, on one line if compact. before NULL: totals only; else also the rates of the interval and the
 * limiting stage. -ENOMEM, -EIO.
 */
int report_json(FILE *out, const char *ifname, const struct reading *before, const struct reading *after,
	bool compact) MUST_CHECK;
