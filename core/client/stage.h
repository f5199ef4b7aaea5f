/* Which metrics of a thread are its packets, bytes and trains: what its work is told in. */
#pragma once

#include "core/base/metrics.h"

struct stage {
	enum metrics_group kind;
	enum metric packets, bytes, trains;
};

/* That of the thread; NULL if its work is not packets. Any thread; constant. */
const struct stage *stage_find(const char *thread);
