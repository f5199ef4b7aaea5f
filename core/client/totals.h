/* What `sluice stats` prints of one reading, in text. Written to the stream; its errors stay there. One thread. */
#pragma once

#include <stdio.h>

#include "core/client/reading.h"

/*
 * What one asks first: the state of the interface, its totals, the drops that happened and what they mean; then
 * the threads, a line for each or, with all, every counter of each; then the peers as wg(8) shows them.
 */
void totals_print(FILE *out, const char *ifname, const struct reading *r, bool all);
/* "up", "down", "unbound": up, but without its port. NULL: a gateway of another version, which does not say. */
const char *totals_state(const struct reading *r);
