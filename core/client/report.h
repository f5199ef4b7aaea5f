/*
 * The JSON of `sluice stats`, of one reading or of two; core/client/totals.h and core/client/interval.h have the
 * text. Written to the stream.
 */
#pragma once

#include <stdio.h>

#include "core/client/reading.h"

/*
 * One object, on one line if compact. before NULL: totals only; else also the rates of the interval and the
 * limiting stage. -ENOMEM, -EIO.
 */
int report_json(FILE *out, const char *ifname, const struct reading *before, const struct reading *after,
	bool compact) MUST_CHECK;
