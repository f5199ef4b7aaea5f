/* Thread tun-rx: TUN queue -> train -> MPSC ring, and on few CPUs what crypto makes of it. */
#include "core/threads/threads.h"

#include <errno.h>

static bool train_full(const struct train *t)
{
	return t->nr == TRAIN_PACKETS_MAX || t->used > TRAIN_BYTES - TRAIN_READ_ROOM;
}

/* Reads into the train, sleeping until there is something. Packets, or -errno. */
static int fill(struct tun_rx_thread *self, struct train *train, bool more)
{
	struct tun_queue *queue = self->queue;
	int nr = 0;

	if (more || park_give_way())
		nr = queue->ops->recv_many(queue, train);
	while (!nr) {
		counter_add(&self->counters.polls, 1);
		nr = queue->ops->recv_wait(queue);
		if (!nr)
			nr = queue->ops->recv_many(queue, train);
	}
	return nr;
}

void *tun_rx_thread_run(void *arg)
{
	struct tun_rx_thread *self = arg;
	struct pipeline *p = self->pipeline;
	bool more = false; /* the last train filled up: there is probably more to read */
	int err = 0;

	rcu_register_thread();
	rcu_thread_offline();
	park_count_wakes(&self->counters.wakes_given);
	while (!pipeline_stopping(p) && !err) {
		struct train *train = pool_get(&self->trains);
		if (!train) {
			/* Backpressure: while all trains are in flight the kernel's queue holds, and drops,
			 * what comes. */
			counter_add(&self->counters.stalls, 1);
			train = pool_wait(&self->trains, &p->stopping);
			if (!train)
				break;
		}
		train_reset(train);

		const int nr = fill(self, train, more);
		if (nr < 0) {
			err = nr;
			pool_put(train);
			break;
		}
		more = train_full(train);
		counter_add(&self->counters.trains, 1);
		histogram_add(&self->counters.train_packets, train->nr);
		const bool small = train->used < train->nr * SMALL_PACKET_BYTES;
		/* The ring has a slot for every train of every reader. */
		const bool pushed = mpsc_push(self->to_state, train);
		assert(pushed);
		(void)pushed;
		if (!park_few_cpus() ||
			hand_over(&self->hand_over, more, small, channel_len(&p->egress_ring)))
			park_wake(&p->state.park);
		else
			state_thread_run_inline(&p->state, &self->park);
	}
	if (err && err != -ECANCELED && !atomic_exchange(&p->tun_failed, true) && p->config.tun_failed)
		p->config.tun_failed(p->config.arg, err);
	rcu_unregister_thread();
	return NULL;
}
