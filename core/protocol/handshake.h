/*
 * The handshake driver: messages in, messages out, sessions derived. State holder.
 *
 * The device is under load while the queue of handshake messages is long, and HANDSHAKE_LOAD_STICKY_NS
 * longer. Then a message must carry a mac2 that proves its source address, or it is answered with a cookie
 * reply alone, and each source is rate-limited. Only a message with a good mac1 begins
 * or prolongs the extra time, and only while the queue is long: so being under load ends soon after the flood does.
 */
#pragma once

#include "core/protocol/device.h"

#define HANDSHAKE_QUEUE_SLOTS 4096
#define HANDSHAKE_LOAD_MARK 512 /* a queue of this length or more is long */
#define HANDSHAKE_LOAD_STICKY_NS NS_PER_SEC

/* A handshake or cookie message on its way from udp-rx, in whose pool it is made, to the state thread. */
struct handshake_message {
	struct pool_item item;
	struct endpoint from;
	uint32_t len;
	uint8_t data[sizeof(struct wire_initiation)];
};

/*
 * Acts on one message of a type and length that wire_classify() accepted. backlog: how many wait in the queue
 * behind it. msg stays the caller's.
 */
void handshake_receive(struct device *dev, const struct handshake_message *msg, unsigned backlog);

/*
 * Sends an initiation to peer, unless an own initiation or response was sent within REKEY_TIMEOUT. is_retry:
 * it repeats one that was not answered; if not, attempts are counted anew. Nothing happens while the device
 * is down or has no private key, or the peer has no endpoint.
 */
void handshake_initiate(struct device *dev, struct peer *peer, bool is_retry);

/* First data came under session (NOTE_CONFIRMED): if it was waiting for that, it becomes current, and what is
 * staged goes out. */
void handshake_confirmed(struct device *dev, struct peer *peer, struct session *session);

/* Forgets the handshake in flight and all sessions of peer. */
void handshake_clear(struct device *dev, struct peer *peer);
