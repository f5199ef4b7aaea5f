/*
 * The first half of ingress, on udp-rx: every datagram of a received batch goes to the thread that may work
 * on it. Data messages go, by receiver index, to the tun-tx thread that owns the session, gathered into one
 * view (core/protocol/ingress_view.h) for each owner; handshake messages are copied and go to the state
 * thread.
 *
 * Nothing is opened here, so nothing here is proven: a datagram with a known index may still be forged.
 */
#pragma once

#include "core/protocol/device.h"
#include "core/protocol/ingress_view.h"
#include "ring/channel.h"

/* All of it is udp-rx's. Owners are numbers of tun-tx threads. */
struct dispatch {
	/* The caller's to fill in. */
	struct device *dev; /* only what other threads may read: running and sessions */
	struct drops *drops;
	struct pool *views;      /* of struct ingress_view */
	struct pool *handshakes; /* of struct handshake_message */
	struct spsc_tx to_tun_tx[TUN_TX_THREADS_MAX];
	struct spsc_tx to_state;
	bool shed_data; /* drop data, keep handshakes: there is no buffer to go on with */

	/* The views being filled from the current batch, by owner, and which owners those are. */
	struct ingress_view *open[TUN_TX_THREADS_MAX];
	unsigned touched[TUN_TX_THREADS_MAX], nr_touched;

	/* Owners with something new in their channel: the caller's to wake or to work for, and to take off. */
	unsigned sent[TUN_TX_THREADS_MAX], nr_sent;

	struct dispatch_counters {
		counter_t views, handshakes;
	} counters;
};

/*
 * Hands every datagram of the batch on, or drops it and counts that. The caller keeps its reference to the
 * batch. A full channel to a tun-tx thread costs its data, never handshakes; these have a
 * queue of their own, and are dropped only when that is full. udp-rx, in an RCU read section.
 */
void dispatch_batch(struct dispatch *d, struct udp_rx_batch *batch);
