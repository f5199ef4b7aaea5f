/*
 * Rate limit of handshakes, by source: token buckets, 20 a second, burst 5, one for each IPv4 address and
 * each IPv6 /64. The table does not grow: when it is full, sources that are not in it are refused. Its hash
 * has a secret key, so that an attacker cannot choose addresses that collide. Asked only under load, and only
 * for sources that have proved their address by a valid mac2. State holder.
 */
#pragma once

#include "ring/base.h"
#include "udp/endpoint.h"

#define RATELIMITER_PER_SECOND 20
#define RATELIMITER_BURST 5
#define RATELIMITER_ENTRIES_MAX 8192

struct ratelimiter_entry;

struct ratelimiter {
	struct ratelimiter_entry *entries; /* hash table with open addressing; half of its slots stay free */
	unsigned nr;                       /* sources in the table */
	uint64_t swept_ns;                 /* when idle sources were last forgotten */
	uint8_t key[16];
};

/* Control thread. -ENOMEM. */
int ratelimiter_init(struct ratelimiter *r) MUST_CHECK;
/* Accepts a zeroed one. */
void ratelimiter_done(struct ratelimiter *r);
/* Takes one token of the source of from: its address, whatever the port. false if it has none or the table is
 * full. */
bool ratelimiter_allow(struct ratelimiter *r, const struct endpoint *from, uint64_t now_ns);
