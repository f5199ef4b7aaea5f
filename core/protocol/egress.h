/*
 * Egress: a train read from TUN is routed, split and sealed into the GSO queue. So are keepalives and packets
 * staged for want of a session: every data message is sealed here, by the state holder.
 */
#pragma once

#include "core/protocol/device.h"
#include "ring/train.h"
#include "tun/split.h"

/* Plaintext that may wait for handshakes, over all peers: the most that a local sender can make us keep. */
#define STAGED_BYTES_MAX (64u << 20)

/* All of it is the state holder's. */
struct egress {
	struct device *dev;
	/* Sends one small packet, an ICMP unreachable, back to the sender. */
	void (*inject)(void *arg, uint8_t *packet, uint32_t len);
	void *inject_arg;
	struct split split;      /* of the packet being sealed */
	uint64_t icmp_credit_ns; /* token bucket of the unreachables */
	uint64_t icmp_refilled_ns;
};

/* Control thread. */
void egress_init(
	struct egress *e, struct device *dev, void (*inject)(void *, uint8_t *, uint32_t), void *arg);

/*
 * Seals, stages or drops every packet of the train, in order. The train stays the caller's, but its bytes are
 * changed. The caller flushes the queue at the end of the drain.
 */
void egress_train(struct egress *e, struct train *train);
/* Seals what is staged, or else an empty data message. If there is no session: starts a handshake. */
void egress_keepalive(struct device *dev, struct peer *peer);
/* Seals all staged packets of peer under its current session, in order. If there is no session they stay, and
 * a handshake is started. Returns whether any was sent. */
bool egress_staged(struct device *dev, struct peer *peer);
/* Drops the staged packets of peer, counted as DROP_EGRESS_STAGED_EXPIRED. */
void egress_purge_staged(struct device *dev, struct peer *peer);
