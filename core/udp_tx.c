/* Thread udp-tx: sealed batches -> sendmmsg with UDP_SEGMENT. Touches no RCU-protected data. */
#include "core/threads.h"

/* Of a call, after which their buffers go back: on a slow link the crypto thread may wait for them. */
#define BATCHES_PER_CALL 8

_Static_assert(BATCHES_PER_CALL <= UDP_TX_BATCHES_MAX, "what udp_tx_send() takes at once");

void *udp_tx_run(void *arg)
{
	struct udp_tx_thread *self = arg;
	struct pipeline *p = self->pipeline;
	struct udp_batch *batch[BATCHES_PER_CALL];

	park_count_wakes(&self->counters.wakes_given);
	while (!pipeline_stopping(p)) {
		const uint32_t ticket = park_ticket(&self->park);
		unsigned nr = 0;

		socket_share_update(&self->share, p);
		while (nr < BATCHES_PER_CALL && (batch[nr] = spsc_pop(self->batches)))
			nr++;
		if (!nr) {
			park_wait(&self->park, ticket, PARK_FOREVER);
			continue;
		}
		histogram_add(&self->counters.queue_seen, nr);
		udp_tx_send(self->tx, self->share.sockets, batch, nr);
		for (unsigned i = nr; i--;)
			pool_put(batch[i]);
	}
	udp_sockets_put(self->share.sockets);
	self->share.sockets = NULL;
	return NULL;
}
