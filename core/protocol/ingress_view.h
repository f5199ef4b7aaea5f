/*
 * A view: the data messages of one received batch that belong to one tun-tx thread, in order of arrival.
 * udp-rx makes it (core/protocol/dispatch.h) and pushes it to that thread, which opens it
 * (core/protocol/ingress.h). It belongs to whoever holds it, one thread at a time, and holds one reference to
 * its batch.
 */
#pragma once

#include "ring/pool.h"
#include "udp/receive.h"

#define INGRESS_SEGS_MAX 1024 /* datagrams in one view */

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

/* The datagram of segment i, of view->segment[i].len bytes: a struct wire_data and what it carries. Its holder. */
static inline uint8_t *ingress_view_datagram(const struct ingress_view *view, unsigned i)
{
	return (uint8_t *)view->batch->data + view->segment[i].offset;
}

/* Any thread. Gives the view back to its pool, and its reference to the batch. */
static inline void ingress_view_put(struct ingress_view *view)
{
	struct udp_rx_batch *batch = view->batch;

	pool_put(view);
	udp_rx_batch_put(batch);
}
