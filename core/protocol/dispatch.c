#include "core/protocol/dispatch.h"

#include "core/protocol/handshake.h"
#include "crypto/wire.h"

static void sort_data(struct dispatch *d, struct udp_rx_batch *batch, unsigned msg, uint32_t at, uint32_t len,
	unsigned owner);
static void pass_handshake(
	struct dispatch *d, const struct udp_rx_msg *msg, const uint8_t *datagram, uint32_t len);
static void send_view(struct dispatch *d, unsigned owner);

void dispatch_batch(struct dispatch *d, struct udp_rx_batch *batch)
{
	const bool running = atomic_load_explicit(&d->dev->running, memory_order_acquire);
	/* The last lookup: one datagram after the other is mostly of one session. */
	bool known = false;
	uint32_t known_index = 0;
	const struct session *session = NULL;

	for (unsigned m = 0; m < batch->nr; m++) {
		const struct udp_rx_msg *msg = &batch->msg[m];
		uint32_t len;

		for (uint32_t at = 0; at < msg->len; at += len) {
			const uint8_t *datagram = msg->data + at;

			len = MIN(msg->segment_len, msg->len - at);
			const enum wire_type type = wire_classify(datagram, len);
			if (unlikely(!type)) {
				drop(d->drops, DROP_INGRESS_UNKNOWN_TYPE, 1);
				continue;
			}
			if (unlikely(!running)) {
				drop(d->drops, DROP_INGRESS_DOWN, 1);
				continue;
			}
			if (unlikely(type != WIRE_DATA)) {
				pass_handshake(d, msg, datagram, len);
				continue;
			}

			const uint32_t index = wire_data_receiver(datagram);
			if (!known || index != known_index) {
				session = session_table_find(&d->dev->sessions, index);
				known = true;
				known_index = index;
			}
			if (unlikely(!session))
				drop(d->drops, DROP_INGRESS_UNKNOWN_INDEX, 1);
			else
				sort_data(d, batch, m, at, len, session->owner);
		}
	}
	while (d->nr_touched)
		send_view(d, d->touched[d->nr_touched - 1]);
}

/* Adds the data message at offset at of message msg to the view of its owner. */
static void sort_data(struct dispatch *d, struct udp_rx_batch *batch, unsigned msg, uint32_t at, uint32_t len,
	unsigned owner)
{
	struct ingress_view *view = d->open[owner];

	if (unlikely(d->shed_data)) {
		drop(d->drops, DROP_INGRESS_NO_BUFFER, 1);
		return;
	}
	if (view && unlikely(view->nr == INGRESS_SEGS_MAX)) {
		send_view(d, owner);
		view = NULL;
	}
	if (!view) {
		view = pool_get(d->views);
		if (unlikely(!view)) {
			drop(d->drops, DROP_INGRESS_NO_BUFFER, 1);
			return;
		}
		view->batch = batch;
		view->nr = 0;
		d->open[owner] = view;
		d->touched[d->nr_touched++] = owner;
	}
	view->segment[view->nr++] = (struct ingress_segment){
		.msg = (uint16_t)msg,
		.len = (uint16_t)len,
		.offset = (uint32_t)(batch->msg[msg].data + at - batch->data[0]),
	};
}

/* A copy, so that a handshake message that waits for the state thread does not keep a whole batch. */
static void pass_handshake(
	struct dispatch *d, const struct udp_rx_msg *msg, const uint8_t *datagram, uint32_t len)
{
	struct handshake_message *copy = pool_get(d->handshakes);

	if (unlikely(!copy)) {
		drop(d->drops, DROP_INGRESS_HANDSHAKE_QUEUE_FULL, 1);
		return;
	}
	copy->from = msg->from;
	copy->len = len;
	memcpy(copy->data, datagram, len);
	if (unlikely(!spsc_push(d->to_state, copy))) {
		drop(d->drops, DROP_INGRESS_HANDSHAKE_QUEUE_FULL, 1);
		pool_put(copy);
		return;
	}
	counter_add(&d->counters.handshakes, 1);
}

/* Gives the view of owner, with a reference to the batch, to its tun-tx thread. */
static void send_view(struct dispatch *d, unsigned owner)
{
	struct ingress_view *view = d->open[owner];
	const unsigned nr = view->nr;

	d->open[owner] = NULL;
	for (unsigned i = 0; i < d->nr_touched; i++) {
		if (d->touched[i] == owner) {
			d->touched[i] = d->touched[--d->nr_touched];
			break;
		}
	}
	udp_rx_batch_get(view->batch);
	if (unlikely(!spsc_push(d->to_tun_tx[owner], view))) {
		drop(d->drops, DROP_INGRESS_CHANNEL_FULL, nr);
		ingress_view_put(view);
		return;
	}
	counter_add(&d->counters.views, 1);
	for (unsigned i = 0; i < d->nr_sent; i++) {
		if (d->sent[i] == owner)
			return;
	}
	d->sent[d->nr_sent++] = owner;
}
