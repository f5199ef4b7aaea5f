/* Every way to drop a packet. What each means, and its public name, stand in core/base/metrics_table.h. */
#pragma once

#include "core/base/metrics_table.h"
#include "ring/base.h"

enum drop_reason {
#define DROPS_ID(a, id, ...) id,
	METRICS_DROP_REASONS(DROPS_ID, ) DROP_REASON_COUNT
};

/* One per thread: single writer. */
struct drops {
	counter_t by_reason[DROP_REASON_COUNT];
};

static inline void drop(struct drops *d, enum drop_reason why, uint64_t packets)
{
	counter_add(&d->by_reason[why], packets);
}

/* What it means, in a few words. */
const char *drop_text(enum drop_reason why);
