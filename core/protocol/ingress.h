/*
 * Ingress. On udp-rx: a received batch is sorted by owner thread (ingress_dispatch). On a decrypt-to-TUN
 * thread: its view of the batch is opened, checked, coalesced and written (ingress_open).
 */
#pragma once

#include "core/protocol/device.h"
#include "core/protocol/handshake.h"
#include "ring/channel.h"
#include "ring/histogram.h"
#include "tun/coalesce.h"
#include "udp/receive.h"

#define INGRESS_SEGS_MAX 1024 /* datagrams in one view */

/* One owner's datagrams of a batch, in order of arrival. Holds one reference to the batch. */
struct ingress_view {
	struct pool_item item;
	struct udp_rx_batch *batch;
	unsigned nr;
	struct ingress_segment {
		uint16_t msg; /* which message of the batch: endpoint and ECN */
		uint16_t len;
		uint32_t offset; /* in batch->data as one array */
	} segment[INGRESS_SEGS_MAX];
};

/* udp-rx's side. */
struct dispatch {
	struct device *dev;
	struct drops *drops;
	struct pool *views;      /* of struct ingress_view */
	struct pool *handshakes; /* of struct handshake_message */
	struct spsc_tx to_tun_tx[TUN_TX_THREADS_MAX];
	struct spsc_tx to_state;
	bool shed_data; /* drop data, keep handshakes: there is no buffer to go on with */
	struct ingress_view *open[TUN_TX_THREADS_MAX];    /* being filled from the current batch */
	unsigned touched[TUN_TX_THREADS_MAX], nr_touched; /* which of them */
	unsigned sent[TUN_TX_THREADS_MAX],
		nr_sent; /* owners with something new in their channel: the caller's to wake */
	struct dispatch_counters {
		counter_t views, handshakes;
	} counters;
};

/*
 * RCU read section. Hands every datagram of the batch on or drops it counted; the caller's reference stays. A
 * full channel drops data only, never handshakes. d->sent lists the owners that the caller now wakes, or
 * works for.
 */
void ingress_dispatch(struct dispatch *d, struct udp_rx_batch *batch);
/* Any thread, after ingress_open(): gives the view back and its reference to the batch. */
void ingress_view_put(struct ingress_view *view);

struct ingress_counters {
	counter_t views, segments, bytes, packets, frames, keepalives;
	struct histogram view_segments; /* datagrams in a view */
	struct histogram frame_packets; /* packets coalesced into a frame */
};

/* A tun-tx thread's side. */
struct ingress {
	struct device *dev;
	struct drops *drops;
	struct aead *aead;
	struct tun_queue *queue;
	struct mpsc_tx notes;
	struct coalesce coalesce;
	struct aead_open_seg *segs; /* INGRESS_SEGS_MAX */
	/* The inner source that was last found allowed, within one view. */
	const struct peer *allowed_peer;
	uint8_t allowed_version;
	uint8_t allowed_src[16];
	struct ingress_counters counters;
};

int ingress_init(struct ingress *in, struct device *dev, struct drops *drops, struct aead *aead,
	struct tun_queue *queue, struct mpsc_tx notes) MUST_CHECK; /* -ENOMEM */
void ingress_done(struct ingress *in);
/* RCU read section. Opens, checks, coalesces and writes all of the view; nothing of it is referenced
 * afterwards. The view stays the caller's. */
void ingress_open(struct ingress *in, struct ingress_view *view, uint64_t now_ns);
