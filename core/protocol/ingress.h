/*
 * The second half of ingress, on a tun-tx thread: the data messages of a view are opened, checked against
 * replay and allowed IPs, coalesced and written to the TUN queue.
 *
 * A session is opened by one thread only, its owner: that is what keeps a peer's packets in order and lets
 * the replay window do without locks. "The owner's thread" is whoever holds the baton of that tun-tx thread:
 * the thread itself, or udp-rx working inline.
 */
#pragma once

#include "core/protocol/device.h"
#include "core/protocol/ingress_view.h"
#include "ring/baton.h"
#include "ring/channel.h"
#include "ring/histogram.h"
#include "tun/coalesce.h"

struct ingress_counters {
	counter_t views, segments, bytes, packets, frames, keepalives;
	struct histogram view_segments; /* datagrams in a view */
	struct histogram frame_packets; /* packets coalesced into a frame */
};

/* All of it is the owner's thread's; see core/protocol/peer.h for what it may write of a peer. */
struct ingress {
	struct device *dev; /* only what other threads may read */
	unsigned owner;     /* number of the tun-tx thread: the sessions of this owner are opened here */
	const struct baton *baton; /* who holds it is the owner's thread; NULL: nothing is checked */
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

/* Control thread. Everything passed stays the caller's, who may fill in baton afterwards. -ENOMEM. */
int ingress_init(struct ingress *in, struct device *dev, unsigned owner, struct drops *drops,
	struct aead *aead, struct tun_queue *queue, struct mpsc_tx notes) MUST_CHECK;
/* Accepts a zeroed struct. */
void ingress_done(struct ingress *in);
/*
 * Opens, checks, coalesces and writes all of the view; nothing of it is referenced afterwards. The view stays
 * the caller's. now_ns is boottime. The owner's thread, in an RCU read section.
 */
void ingress_open(struct ingress *in, struct ingress_view *view, uint64_t now_ns);
