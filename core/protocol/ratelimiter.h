/*
 * Handshake rate limit per source: token buckets, 20 a second, burst 5, IPv4 by /32 and IPv6 by /64. The
 * table is capped; when it is full, sources without an entry are refused. Keyed by a secret so that an
 * attacker cannot choose collisions. Asked only under load and for sources that proved their address (valid
 * mac2). State thread.
 */
#pragma once

#include "ring/base.h"
#include "udp/endpoint.h"

#define RATELIMITER_PER_SECOND 20
#define RATELIMITER_BURST 5
#define RATELIMITER_ENTRIES_MAX 8192

struct ratelimiter_entry;

struct ratelimiter {
	struct ratelimiter_entry *entries; /* open addressing, RATELIMITER_ENTRIES_MAX * 2 */
	unsigned nr;                       /* sources in the table */
	uint64_t swept_ns;                 /* when idle sources were last forgotten */
	uint8_t key[16];
};

/* Control thread. -ENOMEM. */
int ratelimiter_init(struct ratelimiter *r) MUST_CHECK;
void ratelimiter_done(struct ratelimiter *r);
/* Takes one token of the source of from (its address, not its port). false when it has none or the table is
 * full. */
bool ratelimiter_allow(struct ratelimiter *r, const struct endpoint *from, uint64_t now_ns);
