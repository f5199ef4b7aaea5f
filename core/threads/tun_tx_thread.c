/* Thread tun-tx: a view of received datagrams -> open, check, coalesce -> TUN queue. */
#include "core/threads/threads.h"

void *tun_tx_thread_run(void *arg)
{
	struct tun_tx_thread *self = arg;

	rcu_register_thread();
	park_count_wakes(&self->counters.wakes_given);
	for (;;) {
		/* Before the look at stopping, whose wake must not be missed. */
		const uint32_t ticket = park_ticket(&self->park);

		if (pipeline_stopping(self->pipeline))
			break;
		if (baton_claim(&self->baton)) {
			tun_tx_thread_drain(self);
			baton_pass(&self->baton);
		}
		rcu_thread_offline();
		park_wait(&self->park, ticket, PARK_FOREVER);
		rcu_thread_online();
	}
	rcu_unregister_thread();
	return NULL;
}

void tun_tx_thread_drain(struct tun_tx_thread *self)
{
	const unsigned waiting = channel_len(self->views.ch);
	struct ingress_view *view;

	if (waiting)
		histogram_add(&self->counters.queue_seen, waiting);
	while (!pipeline_stopping(self->pipeline) && (view = spsc_pop(self->views))) {
		ingress_open(&self->ingress, view, clock_boottime_ns());
		ingress_view_put(view);
		rcu_quiescent_state();
	}
}
