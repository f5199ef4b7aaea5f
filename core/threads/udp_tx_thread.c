/* Thread udp-tx: sealed batches -> sendmmsg with UDP_SEGMENT. Touches no RCU-protected data. */
#include <sched.h>

#include "core/threads/threads.h"

_Static_assert(UDP_BATCHES_PER_CALL <= UDP_TX_BATCHES_MAX, "what udp_tx_send() takes at once");

static bool drain(struct udp_tx_thread *self);
static void send_from(int cpu, struct udp_tx_thread *self, struct udp_batch **batch, unsigned nr);

void *udp_tx_thread_run(void *arg)
{
	struct udp_tx_thread *self = arg;

	bool holds = false;

	park_count_wakes(&self->counters.wakes_given);
	for (;;) {
		/* Before the look at stopping, whose wake must not be missed. */
		const uint32_t ticket = park_ticket(&self->park);

		if (pipeline_stopping(self->pipeline))
			break;
		holds = holds || baton_claim(&self->baton);
		if (holds) {
			if (drain(self))
				continue;
			baton_pass(&self->baton);
			holds = false;
		}
		park_wait(&self->park, ticket, PARK_FOREVER);
	}
	return NULL;
}

bool udp_tx_borrow(struct udp_tx_thread *self)
{
	if (!baton_try(&self->baton))
		return false;
	/* Sealed before, and its thread is on the way; or sent from elsewhere. */
	if (channel_len(self->batches.ch) || sched_getcpu() != self->last_cpu) {
		baton_pass(&self->baton);
		return false;
	}
	socket_share_update(&self->share, self->pipeline);
	return true;
}

unsigned udp_tx_in_passing(struct udp_tx_thread *self, struct udp_batch **batches, unsigned nr)
{
	if (sched_getcpu() != self->last_cpu)
		return 0;
	self->sent_in_passing = true;
	counter_add(&self->counters.inline_sends, 1);
	return udp_tx_try(self->tx, self->share.sockets, batches, nr);
}

/* One call's worth of batches. false: there is none. */
static bool drain(struct udp_tx_thread *self)
{
	struct udp_batch *batch[UDP_BATCHES_PER_CALL];
	unsigned nr = 0;

	socket_share_update(&self->share, self->pipeline);
	while (nr < UDP_BATCHES_PER_CALL && (batch[nr] = spsc_pop(self->batches)))
		nr++;
	if (!nr)
		return false;
	histogram_add(&self->counters.queue_seen, nr);
	if (self->sent_in_passing && sched_getcpu() != self->last_cpu)
		send_from(self->last_cpu, self, batch, nr);
	else
		udp_tx_send(self->tx, self->share.sockets, batch, nr);
	self->last_cpu = sched_getcpu();
	self->sent_in_passing = false;
	for (unsigned i = nr; i--;)
		pool_put(batch[i]);
	return true;
}

/* Behind what left from that CPU in passing and may still lie in its queues. Seldom needed. */
static void send_from(int cpu, struct udp_tx_thread *self, struct udp_batch **batch, unsigned nr)
{
	cpu_set_t before, there;
	const bool known = !sched_getaffinity(0, sizeof(before), &before);

	CPU_ZERO(&there);
	CPU_SET((unsigned)cpu, &there);
	if (known)
		IGNORE_RESULT(
			"a CPU that is gone has no queues", sched_setaffinity(0, sizeof(there), &there));
	udp_tx_send(self->tx, self->share.sockets, batch, nr);
	if (known)
		IGNORE_RESULT("it was allowed before", sched_setaffinity(0, sizeof(before), &before));
}
