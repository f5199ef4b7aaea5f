/*
 * Anti-replay window of RFC 6479: a bitmap in a ring of 64-bit words. It has one owner thread, which asks it
 * only about packets that the AEAD has authenticated.
 */
#pragma once

#include "ring/base.h"

#define REPLAY_BITS 8192
#define REPLAY_WORDS (REPLAY_BITS / 64)
#define REPLAY_WINDOW (REPLAY_BITS - 64) /* 8128: counters this far behind the highest are still accepted */

struct replay {
	uint64_t next; /* highest accepted counter + 1; 0: none yet */
	uint64_t bitmap[REPLAY_WORDS];
};

void replay_init(struct replay *r);
/* Accepts a counter once: false if seen, too old, or at or past WireGuard's REJECT_AFTER_MESSAGES. */
bool replay_accept(struct replay *r, uint64_t counter);
