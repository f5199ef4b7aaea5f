/*
 * Egress, crypto thread: a train read from TUN -> route -> split -> seal into the GSO queue. Also keepalives and staged packets,
 * so that every data message is sealed in one place.
 */
#pragma once

#include "core/device.h"
#include "ring/train.h"
#include "tun/split.h"

struct egress_counters {
	counter_t trains, packets, segments, bytes;
};

struct egress {
	struct device *dev;
	struct drops *drops;
	/* Writes one small packet (ICMP unreachable) back to the local sender. */
	void (*inject)(void *arg, uint8_t *packet, uint32_t len);
	void *inject_arg;
	struct split split;
	struct egress_counters counters;
	uint64_t icmp_tokens_ns; /* rate limit of unreachables */
};

/* Seals or stages every packet of the train. The train stays the caller's. The queue is flushed by the caller at the end of the drain. */
void egress_train(struct egress *e, struct train *train);
/* Seals an empty data message if there is a session; else starts a handshake. */
void egress_keepalive(struct device *dev, struct peer *peer);
/* Seals all staged packets of peer under its current session, in order; does nothing without one. Returns whether any was sent. */
bool egress_staged(struct device *dev, struct peer *peer);
/* Drops the staged packets of peer, counted as EGRESS_STAGED_EXPIRED. */
void egress_purge_staged(struct device *dev, struct peer *peer);
