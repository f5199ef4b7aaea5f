/*
 * Egress, state thread: a train read from TUN -> route -> split -> seal into the GSO queue. Also keepalives
 * and staged packets, so that every data message is sealed in one place.
 */
#pragma once

#include "core/protocol/device.h"
#include "ring/train.h"
#include "tun/split.h"

/* Plaintext that may wait for handshakes, over all peers: bounds what a local sender can make us hold. */
#define STAGED_BYTES_MAX (64u << 20)

struct egress {
	struct device *dev;
	/* Writes one small packet (ICMP unreachable) back to the local sender. State thread. */
	void (*inject)(void *arg, uint8_t *packet, uint32_t len);
	void *inject_arg;
	struct split split;
	uint64_t icmp_credit_ns; /* token bucket of the unreachables */
	uint64_t icmp_refilled_ns;
};

void egress_init(
	struct egress *e, struct device *dev, void (*inject)(void *, uint8_t *, uint32_t), void *arg);

/*
 * Seals or stages every packet of the train, in order. The train stays the caller's; its bytes are scribbled
 * over. The caller flushes the queue at the end of the drain.
 */
void egress_train(struct egress *e, struct train *train);
/* Seals an empty data message if there is a session; else starts a handshake. */
void egress_keepalive(struct device *dev, struct peer *peer);
/* Seals all staged packets of peer under its current session, in order; does nothing without one. Returns
 * whether any was sent. */
bool egress_staged(struct device *dev, struct peer *peer);
/* Drops the staged packets of peer, counted as EGRESS_STAGED_EXPIRED. */
void egress_purge_staged(struct device *dev, struct peer *peer);
