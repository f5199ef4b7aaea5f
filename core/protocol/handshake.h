/*
 * The handshake driver: messages in, messages out, sessions derived. State thread.
 *
 * Under load (a long queue, for HANDSHAKE_LOAD_STICKY_NS after it was last seen) a message must carry a mac2
 * that proves its source address, or is answered with a cookie reply alone; and each source is rate-limited.
 * Only a message with a good mac1 can put the device under load, and being under load does not prolong
 * itself, so it ends a second after the flood does.
 */
#pragma once

#include "core/protocol/device.h"

#define HANDSHAKE_QUEUE_SLOTS 4096
#define HANDSHAKE_LOAD_MARK                                                                                  \
	512 /* queue length from which the device is under load, for HANDSHAKE_LOAD_STICKY_NS */
#define HANDSHAKE_LOAD_STICKY_NS NS_PER_SEC

/* A handshake or cookie message on its way from udp-rx to the state thread. From udp-rx's pool. */
struct handshake_message {
	struct pool_item item;
	struct endpoint from;
	uint32_t len;
	uint8_t data[sizeof(struct wire_initiation)];
};

/*
 * Handles one message of a type and length that wire_classify() accepted. backlog is how many more wait
 * behind it (for the load mark). msg stays the caller's.
 */
void handshake_receive(struct device *dev, const struct handshake_message *msg, unsigned backlog);

/*
 * Sends an initiation to peer unless an own initiation or response was sent within REKEY_TIMEOUT. is_retry:
 * from the retransmit timer; a fresh one resets the attempt count. Nothing happens while the device is down,
 * has no identity, or the peer has no endpoint.
 */
void handshake_initiate(struct device *dev, struct peer *peer, bool is_retry);

/* First data came under session of peer (NOTE_CONFIRMED): if it waited for that, it becomes current and what
 * is staged goes out. */
void handshake_confirmed(struct device *dev, struct peer *peer, struct session *session);

/* Forgets handshake and sessions of peer. */
void handshake_clear(struct device *dev, struct peer *peer);
