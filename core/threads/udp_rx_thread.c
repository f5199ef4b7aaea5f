/* Thread udp-rx: recvmmsg with UDP_GRO -> views for the tun-tx threads, handshake messages for the crypto
 * thread. */
#include "core/threads/threads.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* recvmmsg calls on one socket before the other gets its turn. */
#define CALLS_PER_TURN 8
/* How often the socket is looked at while waiting for a buffer. */
#define BUFFER_WAIT_STEP_NS NS_PER_MS

static void receive(struct udp_rx_thread *self, int fd);
static void open_views(struct udp_rx_thread *self, bool more, bool small);
static struct udp_rx_batch *next_batch(struct udp_rx_thread *self, int fd);
static bool socket_half_full(int fd);

void *udp_rx_thread_run(void *arg)
{
	struct udp_rx_thread *self = arg;
	struct pipeline *p = self->pipeline;

	rcu_register_thread();
	park_count_wakes(&self->counters.wakes_given);
	self->batch = pool_get(&self->batches);
	assert(self->batch);
	while (!pipeline_stopping(p)) {
		socket_share_update(&self->share, p);
		const struct udp_sockets *s = self->share.sockets;
		struct pollfd fds[] = {
			{.fd = self->wake_fd, .events = POLLIN},
			{.fd = s ? s->fd4 : -1, .events = POLLIN},
			{.fd = s ? s->fd6 : -1, .events = POLLIN},
		};

		counter_add(&self->counters.polls, 1);
		rcu_thread_offline();
		const int ready = poll(fds, ARRAY_LEN(fds), -1);
		rcu_thread_online();
		if (ready <= 0)
			continue; /* EINTR or a passing lack of memory */
		if (fds[0].revents) {
			eventfd_t value;
			(void)!eventfd_read(self->wake_fd, &value); /* only its edge matters */
		}
		if (fds[1].revents)
			receive(self, fds[1].fd);
		if (fds[2].revents)
			receive(self, fds[2].fd);
	}
	pool_put(self->batch);
	udp_sockets_put(self->share.sockets);
	self->share.sockets = NULL;
	rcu_unregister_thread();
	return NULL;
}

static void receive(struct udp_rx_thread *self, int fd)
{
	for (unsigned i = 0; i < CALLS_PER_TURN && !pipeline_stopping(self->pipeline); i++) {
		struct udp_rx_batch *batch = self->batch;

		if (udp_receive(self->rx, fd, batch) <= 0)
			return;
		/*
		 * Without a buffer to go on with, this one is not handed out: its data is shed and its
		 * handshake messages, which are copied, still get through.
		 */
		struct udp_rx_batch *next = next_batch(self, fd);
		self->dispatch.shed_data = !next;
		ingress_dispatch(&self->dispatch, batch);
		/* A full batch: the socket holds more, which can be received while this is opened. */
		open_views(self, batch->nr == UDP_RX_MSGS, batch->msg[0].segment_len < SMALL_PACKET_BYTES);
		if (next) {
			self->batch = next;
			udp_rx_batch_put(batch);
		} else {
			counter_add(&self->counters.sheds, 1);
		}
		rcu_quiescent_state();
	}
}

/* The tun-tx threads that got something do their work themselves, or the last of them is spared. */
static void open_views(struct udp_rx_thread *self, bool more, bool small)
{
	struct dispatch *d = &self->dispatch;
	struct pipeline *p = self->pipeline;

	while (d->nr_sent) {
		struct tun_tx_thread *t = &p->tun_tx[d->sent[--d->nr_sent]];

		if (d->nr_sent || hand_over(&self->hand_over, more, small, channel_len(t->views.ch)) ||
			!baton_try(&t->baton)) {
			park_wake(&t->park);
			continue;
		}
		tun_tx_thread_drain(t);
		baton_pass(&t->baton);
		counter_add(&t->counters.inline_drains, 1);
	}
}

/*
 * A free buffer. While the socket has room the tun-tx threads get the time to return one: the kernel's queue
 * absorbs the burst. Once it is half full, NULL: waiting on would lose handshakes, too.
 */
static struct udp_rx_batch *next_batch(struct udp_rx_thread *self, int fd)
{
	struct udp_rx_batch *batch = pool_get(&self->batches);
	if (likely(batch))
		return batch;

	counter_add(&self->counters.waits, 1);
	rcu_thread_offline();
	while (!batch && !pipeline_stopping(self->pipeline) && !socket_half_full(fd))
		batch = pool_wait_until(
			&self->batches, &self->pipeline->stopping, park_clock_ns() + BUFFER_WAIT_STEP_NS);
	rcu_thread_online();
	return batch;
}

static bool socket_half_full(int fd)
{
	uint32_t info[SK_MEMINFO_VARS];
	socklen_t len = sizeof(info);

	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len))
		return true;
	return info[SK_MEMINFO_RMEM_ALLOC] > info[SK_MEMINFO_RCVBUF] / 2;
}
