#include "core/threads/udp_rx_thread.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/base/metrics.h"
#include "core/protocol/dispatch.h"
#include "core/protocol/handshake.h"
#include "core/threads/hand_over.h"
#include "core/threads/worker.h"
#include "udp/receive.h"

/* Receive buffers, each of UDP_RX_MSGS messages. */
#define BATCHES 12
/* recvmmsg calls on one socket before the other gets its turn. */
#define CALLS_PER_TURN 8
/* How often the socket is looked at while waiting for a buffer. */
#define BUFFER_WAIT_STEP_NS NS_PER_MS

/* All of it is the thread's own; the buffers of its pools come back from the state holder and tun-tx threads. */
struct udp_rx_thread {
	CACHE_ALIGNED struct worker worker; /* sleeps on its park only while it waits for a buffer */
	struct udp_rx_thread_config config;
	int wake_fd; /* eventfd: to stop, or to go over to new sockets */
	struct socket_share share;
	struct pool batches;    /* of struct udp_rx_batch */
	struct pool views;      /* of struct ingress_view */
	struct pool handshakes; /* of struct handshake_message */
	struct udp_rx *rx;
	struct udp_rx_batch *batch; /* being filled */
	struct dispatch dispatch;
	unsigned hand_over_spares; /* see hand_over() */
	struct drops drops;
	struct udp_rx_thread_counters {
		counter_t waits; /* times it waited for a buffer */
		counter_t sheds; /* batches whose data was dropped because none came */
		counter_t polls; /* waits for the sockets */
		counter_t wakes_given;
	} counters;
};

static int init(struct udp_rx_thread *t);
static void *run_udp_rx(void *arg);
static void receive(struct udp_rx_thread *t, int fd);
static void hand_over_views(struct udp_rx_thread *t, bool more, bool small);
static struct udp_rx_batch *next_batch(struct udp_rx_thread *t, int fd);
static bool socket_half_full(int fd);

int udp_rx_thread_new(struct udp_rx_thread **out, const struct udp_rx_thread_config *config)
{
	struct udp_rx_thread *t = aligned_alloc(CACHE_LINE, sizeof(*t));

	if (!t)
		return -ENOMEM;
	memset(t, 0, sizeof(*t));
	t->config = *config;
	worker_init(&t->worker, config->stopping);
	socket_share_init(&t->share, config->sockets);
	t->wake_fd = -1;
	const int err = init(t);
	if (err) {
		udp_rx_thread_free(t);
		return err;
	}
	*out = t;
	return 0;
}

/* What it has made is taken down by udp_rx_thread_free(), also after a failure. */
static int init(struct udp_rx_thread *t)
{
	const unsigned nr_tun_tx = t->config.nr_tun_tx;
	int err;

	t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->wake_fd < 0)
		return -errno;
	err = udp_rx_new(&t->rx, NULL);
	if (!err)
		err = pool_init(&t->batches, BATCHES, sizeof(struct udp_rx_batch), &t->worker.park);
	/* A batch can be in the hands of several tun-tx threads; a view more than there are slots is never
	 * needed. */
	if (!err)
		err = pool_init(&t->views, MIN(CHANNEL_SLOTS, BATCHES * MIN(nr_tun_tx, 8u)),
			sizeof(struct ingress_view), NULL);
	if (!err)
		err = pool_init(
			&t->handshakes, HANDSHAKE_QUEUE_SLOTS, sizeof(struct handshake_message), NULL);
	if (err)
		return err;
	t->dispatch.dev = state_thread_device(t->config.state);
	t->dispatch.drops = &t->drops;
	t->dispatch.views = &t->views;
	t->dispatch.handshakes = &t->handshakes;
	t->dispatch.to_state = state_thread_handshakes(t->config.state);
	for (unsigned i = 0; i < nr_tun_tx; i++)
		t->dispatch.to_tun_tx[i] = tun_tx_thread_views(t->config.tun_tx[i]);
	return 0;
}

int udp_rx_thread_start(struct udp_rx_thread *t)
{
	return worker_start(&t->worker, "udp-rx", run_udp_rx, t);
}

void udp_rx_thread_stop(struct udp_rx_thread *t)
{
	if (!t)
		return;
	udp_rx_thread_wake(t);
	worker_wake(&t->worker);
}

void udp_rx_thread_join(struct udp_rx_thread *t)
{
	if (t)
		worker_join(&t->worker);
}

void udp_rx_thread_free(struct udp_rx_thread *t)
{
	if (!t)
		return;
	socket_share_done(&t->share);
	udp_rx_free(t->rx);
	pool_done(&t->batches);
	pool_done(&t->views);
	pool_done(&t->handshakes);
	if (t->wake_fd >= 0)
		close(t->wake_fd);
	free(t);
}

void udp_rx_thread_wake(struct udp_rx_thread *t)
{
	IGNORE_RESULT("fails only when it is readable already", eventfd_write(t->wake_fd, 1));
}

bool udp_rx_thread_has_adopted(const struct udp_rx_thread *t)
{
	return socket_share_adopted(&t->share);
}

unsigned udp_rx_thread_buffers_in_use(const struct udp_rx_thread *t)
{
	return pool_in_use(&t->batches) + pool_in_use(&t->views) + pool_in_use(&t->handshakes);
}

static void *run_udp_rx(void *arg)
{
	struct udp_rx_thread *t = arg;

	rcu_register_thread();
	park_count_wakes(&t->counters.wakes_given);
	t->batch = pool_get(&t->batches);
	CHECK(t->batch);
	while (!worker_stopping(&t->worker)) {
		socket_share_update(&t->share);
		const struct udp_sockets *s = t->share.sockets;
		struct pollfd fds[] = {
			{.fd = t->wake_fd, .events = POLLIN},
			{.fd = s ? s->fd4 : -1, .events = POLLIN},
			{.fd = s ? s->fd6 : -1, .events = POLLIN},
		};

		counter_add(&t->counters.polls, 1);
		rcu_thread_offline();
		const int ready = poll(fds, ARRAY_LEN(fds), -1);
		rcu_thread_online();
		if (ready <= 0)
			continue; /* EINTR or a passing lack of memory */
		if (fds[0].revents) {
			eventfd_t value;
			IGNORE_RESULT("only its edge matters", eventfd_read(t->wake_fd, &value));
		}
		if (fds[1].revents)
			receive(t, fds[1].fd);
		if (fds[2].revents)
			receive(t, fds[2].fd);
	}
	pool_put(t->batch);
	rcu_unregister_thread();
	return NULL;
}

static void receive(struct udp_rx_thread *t, int fd)
{
	for (unsigned i = 0; i < CALLS_PER_TURN && !worker_stopping(&t->worker); i++) {
		struct udp_rx_batch *batch = t->batch;

		if (udp_receive(t->rx, fd, batch) <= 0)
			return;
		/*
		 * Without a buffer to go on with, this one is not handed out: its data is shed and its
		 * handshake messages, which are copied, still get through.
		 */
		struct udp_rx_batch *next = next_batch(t, fd);
		t->dispatch.shed_data = !next;
		dispatch_batch(&t->dispatch, batch);
		/* After a full batch the socket holds more. */
		hand_over_views(
			t, batch->nr == UDP_RX_MSGS, batch->msg[0].segment_len < HAND_OVER_SMALL_BYTES);
		if (next) {
			t->batch = next;
			udp_rx_batch_put(batch);
		} else {
			counter_add(&t->counters.sheds, 1);
		}
		rcu_quiescent_state();
	}
}

/* To each tun-tx thread that got views of this batch. */
static void hand_over_views(struct udp_rx_thread *t, bool more, bool small)
{
	struct dispatch *d = &t->dispatch;

	while (d->nr_sent) {
		struct tun_tx_thread *to = t->config.tun_tx[d->sent[--d->nr_sent]];
		const struct hand_over_output decision = hand_over(&(struct hand_over_input){
			.consumer = HAND_OVER_TO_TUN_TX,
			.cpus = park_cpus(),
			.queue_len = tun_tx_thread_waiting(to),
			.more_to_read = more,
			.small_packets = small,
			.spares = t->hand_over_spares,
			.others_behind = d->nr_sent,
		});

		t->hand_over_spares = decision.spares;
		if (decision.how == HAND_OVER_WAKE || !tun_tx_thread_try_run_inline(to))
			tun_tx_thread_wake(to);
	}
}

/*
 * A free buffer. While the socket has room the tun-tx threads get the time to return one: the kernel's queue
 * absorbs the burst. Once it is half full, NULL: waiting on would lose handshakes, too.
 */
static struct udp_rx_batch *next_batch(struct udp_rx_thread *t, int fd)
{
	struct udp_rx_batch *batch = pool_get(&t->batches);
	if (likely(batch))
		return batch;

	counter_add(&t->counters.waits, 1);
	rcu_thread_offline();
	while (!batch && !worker_stopping(&t->worker) && !socket_half_full(fd))
		batch = pool_wait_until(
			&t->batches, t->worker.stopping, park_clock_ns() + BUFFER_WAIT_STEP_NS);
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

static METRICS_DEFINE_ADD(add_counters, struct udp_rx_thread_counters, METRICS_UDP_RX_COUNTERS)
static METRICS_DEFINE_ADD(add_dispatch, struct dispatch_counters, METRICS_DISPATCH)

void udp_rx_thread_register(const struct udp_rx_thread *t, struct metrics *m)
{
	const enum metrics_group group = METRICS_GROUP_UDP_RX;

	metrics_add_udp_rx(m, group, 0, udp_rx_counters(t->rx));
	add_dispatch(m, group, 0, &t->dispatch.counters);
	add_counters(m, group, 0, &t->counters);
	metrics_add_pool(m, group, 0, METRIC_BATCHES_IN_USE, METRIC_BATCHES_CAPACITY, &t->batches);
	metrics_add_read(m, group, 0, METRIC_CPU_NS, worker_cpu_ns, &t->worker);
	metrics_add_park(m, group, 0, &t->worker.park.counters);
	metrics_add_drops(m, &t->drops);
}
