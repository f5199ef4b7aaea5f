#include "core/threads/pipeline.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "core/protocol/handshake.h"
#include "core/base/log.h"
#include "core/threads/threads.h"
#include "crypto/secret.h"

static int init_tun_rx(struct pipeline *p, unsigned i);
static int init_state(struct pipeline *p);
static int init_udp_tx(struct pipeline *p);
static int init_udp_rx(struct pipeline *p);
static int init_tun_tx(struct pipeline *p, unsigned i);
static int start(pthread_t *thread, bool *started, void *(*run)(void *), void *arg, const char *name);
static int register_counters(struct pipeline *p);
static uint64_t read_clock(const void *id);
static void inject_packet(void *arg, uint8_t *packet, uint32_t len);

int pipeline_start(struct pipeline **out, const struct pipeline_config *config)
{
	const unsigned nr = config->tun_threads;
	/* The device inside holds the private key. */
	struct pipeline *p = secret_alloc(sizeof(*p));
	int err = -ENOMEM;

	assert(nr >= 1 && nr <= TUN_TX_THREADS_MAX);
	if (!p)
		return -ENOMEM;
	p->config = *config;
	p->nr = nr;
	p->tun_rx = aligned_alloc(CACHE_LINE, nr * sizeof(*p->tun_rx));
	p->tun_tx = aligned_alloc(CACHE_LINE, nr * sizeof(*p->tun_tx));
	p->udp_rx.wake_fd = -1;
	if (p->tun_rx)
		memset(p->tun_rx, 0, nr * sizeof(*p->tun_rx));
	if (p->tun_tx)
		memset(p->tun_tx, 0, nr * sizeof(*p->tun_tx));
	if (!p->tun_rx || !p->tun_tx)
		goto err_stop;

	/* Consumers first: a producer's ring needs the park of its consumer. */
	err = init_state(p);
	if (!err)
		err = init_udp_tx(p);
	if (!err)
		err = init_udp_rx(p);
	for (unsigned i = 0; i < nr && !err; i++)
		err = init_tun_tx(p, i);
	for (unsigned i = 0; i < nr && !err; i++)
		err = init_tun_rx(p, i);
	if (!err)
		err = register_counters(p);
	if (err)
		goto err_stop;

	/* Every thread finds everything in place: from here on nothing is initialised any more. */
	err = start(&p->state.thread, &p->state.started, state_thread_run, &p->state, "state");
	if (!err)
		err = start(&p->udp_tx.thread, &p->udp_tx.started, udp_tx_thread_run, &p->udp_tx, "udp-tx");
	if (!err)
		err = start(&p->udp_rx.thread, &p->udp_rx.started, udp_rx_thread_run, &p->udp_rx, "udp-rx");
	for (unsigned i = 0; i < nr && !err; i++) {
		char name[32];

		snprintf(name, sizeof(name), "tun-tx%u", i);
		err = start(
			&p->tun_tx[i].thread, &p->tun_tx[i].started, tun_tx_thread_run, &p->tun_tx[i], name);
		snprintf(name, sizeof(name), "tun-rx%u", i);
		if (!err)
			err = start(&p->tun_rx[i].thread, &p->tun_rx[i].started, tun_rx_thread_run,
				&p->tun_rx[i], name);
	}
	if (err)
		goto err_stop;
	*out = p;
	return 0;

err_stop:
	pipeline_stop(p);
	return err;
}

void pipeline_stop(struct pipeline *p)
{
	if (!p)
		return;
	atomic_store(&p->stopping, true);
	for (unsigned i = 0; i < p->nr && p->tun_rx; i++) {
		if (p->tun_rx[i].queue)
			p->tun_rx[i].queue->ops->stop(p->tun_rx[i].queue);
		if (p->tun_rx[i].started)
			park_wake(&p->tun_rx[i].park);
	}
	if (p->udp_rx.started) {
		(void)!eventfd_write(p->udp_rx.wake_fd, 1); /* fails only when already readable */
		park_wake(&p->udp_rx.park);
	}
	if (p->state.started)
		park_wake(&p->state.park);
	if (p->udp_tx.started)
		park_wake(&p->udp_tx.park);
	for (unsigned i = 0; i < p->nr && p->tun_tx; i++) {
		if (p->tun_tx[i].started)
			park_wake(&p->tun_tx[i].park);
	}

	for (unsigned i = 0; i < p->nr && p->tun_rx; i++) {
		if (p->tun_rx[i].started)
			pthread_join(p->tun_rx[i].thread, NULL);
	}
	if (p->udp_rx.started)
		pthread_join(p->udp_rx.thread, NULL);
	if (p->state.started)
		pthread_join(p->state.thread, NULL);
	if (p->udp_tx.started)
		pthread_join(p->udp_tx.thread, NULL);
	for (unsigned i = 0; i < p->nr && p->tun_tx; i++) {
		if (p->tun_tx[i].started)
			pthread_join(p->tun_tx[i].thread, NULL);
	}

	/* No thread is left: whatever lies in the rings and pools goes with their memory. */
	if (p->config.stats)
		stats_clear(p->config.stats);
	udp_sockets_put(p->sockets);
	udp_sockets_put(p->udp_tx.share.sockets);
	if (p->state.device.nr_tun_tx_threads)
		device_done(&p->state.device);
	aead_free(p->state.device.aead);
	udp_tx_free(p->udp_tx.tx);
	udp_rx_free(p->udp_rx.rx);
	if (p->udp_rx.wake_fd >= 0)
		close(p->udp_rx.wake_fd);
	for (unsigned i = 0; i < p->nr && p->tun_tx; i++) {
		ingress_done(&p->tun_tx[i].ingress);
		aead_free(p->tun_tx[i].ingress.aead);
		channel_done(&p->views_ring[i]);
	}
	for (unsigned i = 0; i < p->nr && p->tun_rx; i++)
		pool_done(&p->tun_rx[i].trains);
	pool_done(&p->state.batches);
	pool_done(&p->udp_rx.batches);
	pool_done(&p->udp_rx.views);
	pool_done(&p->udp_rx.handshakes);
	channel_done(&p->egress_ring);
	channel_done(&p->handshake_ring);
	channel_done(&p->notes_ring);
	channel_done(&p->command_ring);
	channel_done(&p->udp_tx_ring);
	free(p->tun_rx);
	free(p->tun_tx);
	secret_free(p, sizeof(*p));
}

void pipeline_call(struct pipeline *p, void (*fn)(struct device *dev, void *arg), void *arg)
{
	struct command command = {.fn = fn, .arg = arg};

	sem_init(&command.done, 0, 0);
	while (!mpsc_push(p->to_commands, &command))
		sched_yield();
	while (sem_wait(&command.done) && errno == EINTR)
		;
	sem_destroy(&command.done);
}

void pipeline_set_sockets(struct pipeline *p, struct udp_sockets *sockets)
{
	struct udp_sockets *old = p->sockets;

	p->sockets = sockets ? udp_sockets_get(sockets) : NULL;
	/* Release pairs with the acquire in socket_share_update(): who sees the generation sees the pointer.
	 */
	const unsigned generation =
		atomic_fetch_add_explicit(&p->sockets_generation, 1, memory_order_release) + 1;
	(void)!eventfd_write(p->udp_rx.wake_fd, 1); /* fails only when already readable */
	park_wake(&p->udp_tx.park);
	/* Both give up their references when they go over, so that the port is free when we return. */
	while (atomic_load_explicit(&p->udp_rx.share.adopted, memory_order_acquire) != generation ||
		atomic_load_explicit(&p->udp_tx.share.adopted, memory_order_acquire) != generation)
		nanosleep(&(struct timespec){.tv_nsec = 100 * 1000}, NULL);
	udp_sockets_put(old);
}

void socket_share_update(struct socket_share *share, struct pipeline *p)
{
	/* Pairs with the release in pipeline_set_sockets(), which changes nothing again before we have
	 * adopted this. */
	const unsigned generation = atomic_load_explicit(&p->sockets_generation, memory_order_acquire);

	if (likely(generation == share->generation))
		return;
	udp_sockets_put(share->sockets);
	share->sockets = p->sockets ? udp_sockets_get(p->sockets) : NULL;
	share->generation = generation;
	atomic_store_explicit(&share->adopted, generation, memory_order_release);
}

void pipeline_set_mtu(struct pipeline *p, uint32_t mtu)
{
	atomic_store_explicit(&p->state.device.mtu, mtu, memory_order_relaxed);
}

uint64_t clock_boottime_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}

uint64_t clock_realtime_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}

static int init_state(struct pipeline *p)
{
	struct state_thread *c = &p->state;
	struct device *dev = &c->device;
	int err;

	c->pipeline = p;
	park_init(&c->park);
	baton_init(&c->baton, &c->park);
	err = device_init(dev, p->nr, p->config.mtu);
	if (err)
		return err;
	dev->aead = p->config.aead->new (&err);
	if (!dev->aead)
		return err;
	dev->queue = &c->queue;
	dev->drops = &c->drops;
	err = mpsc_init(&p->command_ring, COMMANDS_SLOTS, &c->park, &p->to_commands, &c->commands);
	if (!err)
		err = pool_init(&c->batches, UDP_BATCHES, sizeof(struct udp_batch), &c->park);
	if (err)
		return err;
	gso_queue_init(&c->queue, &c->batches, state_thread_deliver, state_thread_wait_batch, c);
	egress_init(&c->egress, dev, inject_packet, c);
	return 0;
}

static int init_udp_tx(struct pipeline *p)
{
	struct udp_tx_thread *t = &p->udp_tx;
	int err;

	t->pipeline = p;
	t->last_cpu = -1;
	park_init(&t->park);
	baton_init(&t->baton, &t->park);
	err = udp_tx_new(&t->tx, NULL, &p->stopping);
	if (!err)
		err = spsc_init(&p->udp_tx_ring, UDP_BATCHES, &t->park, &p->state.to_udp_tx, &t->batches);
	return err;
}

static int init_udp_rx(struct pipeline *p)
{
	struct udp_rx_thread *t = &p->udp_rx;
	int err;

	t->pipeline = p;
	park_init(&t->park);
	t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->wake_fd < 0)
		return -errno;
	err = udp_rx_new(&t->rx, NULL);
	if (!err)
		err = pool_init(&t->batches, UDP_RX_BATCHES, sizeof(struct udp_rx_batch), &t->park);
	/* Each batch can be in the hands of several tun-tx threads; a view more than there are slots is
	 * never needed. */
	if (!err)
		err = pool_init(&t->views, MIN(CHANNEL_SLOTS, UDP_RX_BATCHES * MIN(p->nr, 8u)),
			sizeof(struct ingress_view), NULL);
	if (!err)
		err = pool_init(
			&t->handshakes, HANDSHAKE_QUEUE_SLOTS, sizeof(struct handshake_message), NULL);
	if (!err)
		err = spsc_init(&p->handshake_ring, HANDSHAKE_QUEUE_SLOTS, &p->state.park,
			&t->dispatch.to_state, &p->state.handshakes);
	if (err)
		return err;
	t->dispatch.dev = &p->state.device;
	t->dispatch.drops = &t->drops;
	t->dispatch.views = &t->views;
	t->dispatch.handshakes = &t->handshakes;
	return 0;
}

static int init_tun_tx(struct pipeline *p, unsigned i)
{
	struct tun_tx_thread *t = &p->tun_tx[i];
	struct mpsc_tx notes;
	int err = 0;

	t->pipeline = p;
	park_init(&t->park);
	baton_init(&t->baton, &t->park);
	/* All tun-tx threads share one notes ring; it is made with the first. */
	if (i == 0)
		err = mpsc_init(&p->notes_ring, NOTES_SLOTS, &p->state.park, &notes, &p->state.notes);
	else
		notes = p->tun_tx[0].ingress.notes;
	if (!err)
		err = spsc_init(
			&p->views_ring[i], CHANNEL_SLOTS, NULL, &p->udp_rx.dispatch.to_tun_tx[i], &t->views);
	if (err)
		return err;
	struct aead *aead = p->config.aead->new (&err);
	if (!aead)
		return err;
	err = ingress_init(&t->ingress, &p->state.device, &t->drops, aead, p->config.queues[i], notes);
	if (err)
		aead_free(aead);
	return err;
}

static int init_tun_rx(struct pipeline *p, unsigned i)
{
	struct tun_rx_thread *t = &p->tun_rx[i];
	int err = 0;

	t->pipeline = p;
	t->queue = p->config.queues[i];
	park_init(&t->park);
	/* All readers share one ring, with a slot for each train there is. */
	if (i == 0)
		err = mpsc_init(
			&p->egress_ring, TRAINS_PER_READER * p->nr, NULL, &t->to_state, &p->state.trains);
	else
		t->to_state = p->tun_rx[0].to_state;
	if (!err)
		err = pool_init(&t->trains, TRAINS_PER_READER, sizeof(struct train), &t->park);
	return err;
}

/* Signals are the control thread's: data threads start with all of them blocked. */
static int start(pthread_t *thread, bool *started, void *(*run)(void *), void *arg, const char *name)
{
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	const int err = pthread_create(thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err)
		return -err;
	*started = true;
	pthread_setname_np(*thread, name);
	return 0;
}

static void inject_packet(void *arg, uint8_t *packet, uint32_t len)
{
	struct state_thread *c = arg;
	/* Beside the queue's own writer: the device takes both, and a lost count is all that can come of it.
	 */
	struct tun_queue *queue = c->pipeline->tun_rx[0].queue;
	struct tun_frame frame = {.len = len, .nr_iov = 2};

	frame.iov[1] = (struct iovec){.iov_base = packet, .iov_len = len};
	/* An answer to a packet that is lost anyway: nothing depends on it. */
	(void)!queue->ops->send(queue, &frame);
}

#define COUNT(group, object, field) err = err ? err : stats_add(s, group, #field, &(object)->field)
#define COUNT_HISTOGRAM(group, object, field)                                                                \
	err = err ? err : stats_add_histogram(s, group, #field, &(object)->field)
#define GAUGE(group, name, read, arg) err = err ? err : stats_add_gauge(s, group, name, read, arg)

static uint64_t read_thread_cpu_ns(const void *thread)
{
	clockid_t clock;

	/* One that has ended, because its device is gone, has no clock any more. */
	return pthread_getcpuclockid(*(const pthread_t *)thread, &clock) ? 0 : read_clock(&clock);
}

static uint64_t read_clock(const void *id)
{
	struct timespec time;

	if (clock_gettime(*(const clockid_t *)id, &time))
		return 0;
	return (uint64_t)time.tv_sec * NS_PER_SEC + (uint64_t)time.tv_nsec;
}

static uint64_t read_channel_len(const void *channel)
{
	return channel_len(channel);
}

static uint64_t read_channel_capacity(const void *channel)
{
	return ((const struct channel *)channel)->capacity;
}

static uint64_t read_pool_in_use(const void *pool)
{
	return pool_in_use(pool);
}

static uint64_t read_pool_count(const void *pool)
{
	return ((const struct pool *)pool)->count;
}

static int register_drops(struct stats *s, const struct drops *d, int err)
{
	for (unsigned why = 0; why < DROP_REASON_COUNT && !err; why++)
		err = stats_add(s, "drops", drop_label(why), &d->by_reason[why]);
	return err;
}

static int register_park(struct stats *s, const char *group, const struct park *park, int err)
{
	COUNT(group, park, parks);
	COUNT(group, park, wakes);
	return err;
}

static int register_channel(struct stats *s, const char *group, const struct channel *ch, int err)
{
	if (!err)
		err = stats_add(s, group, "queue_high_water", &ch->high_water);
	if (!err)
		err = stats_add(s, group, "queue_refused", &ch->refused);
	GAUGE(group, "queue_len", read_channel_len, ch);
	GAUGE(group, "queue_capacity", read_channel_capacity, ch);
	return err;
}

/* The control thread is the one that reads. */
static int register_process(struct stats *s, int err)
{
	static const clockid_t monotonic = CLOCK_MONOTONIC, process = CLOCK_PROCESS_CPUTIME_ID,
			       this_thread = CLOCK_THREAD_CPUTIME_ID;

	GAUGE("process", "time_ns", read_clock, &monotonic);
	GAUGE("process", "cpu_ns", read_clock, &process);
	GAUGE("control", "cpu_ns", read_clock, &this_thread);
	return err;
}

static int register_counters(struct pipeline *p)
{
	struct stats *s = p->config.stats;
	const struct device *dev = &p->state.device;
	char group[32];
	int err = 0;

	if (!s)
		return 0;
	err = register_process(s, err);
	for (unsigned i = 0; i < p->nr; i++) {
		const struct tun_rx_thread *t = &p->tun_rx[i];

		snprintf(group, sizeof(group), "tun-rx%u", i);
		COUNT(group, &t->counters, trains);
		COUNT(group, &t->counters, stalls);
		COUNT(group, &t->counters, polls);
		COUNT(group, &t->counters, wakes_given);
		COUNT_HISTOGRAM(group, &t->counters, train_packets);
		GAUGE(group, "trains_in_flight", read_pool_in_use, &t->trains);
		GAUGE(group, "trains_capacity", read_pool_count, &t->trains);
		GAUGE(group, "cpu_ns", read_thread_cpu_ns, &t->thread);
		COUNT(group, t->queue, reads);
		COUNT(group, t->queue, read_packets);
		COUNT(group, t->queue, read_bytes);
		COUNT(group, t->queue, read_malformed);
		if (!err)
			err = stats_add(s, "drops", "egress_not_a_packet", &t->queue->read_malformed);
		err = register_drops(s, &t->drops, err);
		err = register_park(s, group, &t->park, err);
	}

	COUNT("state", &p->state.counters, turns);
	COUNT("state", &p->state.counters, inline_turns);
	COUNT("state", &p->state.counters, wakes_given);
	COUNT_HISTOGRAM("state", &p->state.counters, queue_seen);
	COUNT_HISTOGRAM("state", &dev->egress_counters, train_segments);
	GAUGE("state", "batches_in_use", read_pool_in_use, &p->state.batches);
	GAUGE("state", "batches_capacity", read_pool_count, &p->state.batches);
	GAUGE("state", "cpu_ns", read_thread_cpu_ns, &p->state.thread);
	COUNT("state", &dev->egress_counters, trains);
	COUNT("state", &dev->egress_counters, packets);
	COUNT("state", &dev->egress_counters, segments);
	COUNT("state", &dev->egress_counters, bytes);
	COUNT("state", &dev->egress_counters, staged);
	COUNT("state", &dev->egress_counters, unreachables_sent);
	COUNT("state", &dev->counters, initiations_sent);
	COUNT("state", &dev->counters, responses_sent);
	COUNT("state", &dev->counters, cookies_sent);
	COUNT("state", &dev->counters, initiations_received);
	COUNT("state", &dev->counters, responses_received);
	COUNT("state", &dev->counters, cookies_received);
	COUNT("state", &dev->counters, handshakes_completed);
	COUNT("state", &dev->counters, keepalives_sent);
	COUNT("state", &dev->counters, rekeys);
	err = register_channel(s, "state", &p->egress_ring, err);
	if (!err)
		err = stats_add(s, "state", "handshake_queue_high_water", &p->handshake_ring.high_water);
	if (!err)
		err = stats_add(s, "state", "note_queue_high_water", &p->notes_ring.high_water);
	if (!err)
		err = stats_add(s, "state", "note_queue_refused", &p->notes_ring.refused);
	err = register_park(s, "state", &p->state.park, err);
	err = register_drops(s, &p->state.drops, err);

	const struct udp_tx_counters *tx = udp_tx_counters(p->udp_tx.tx);
	COUNT("udp-tx", tx, calls);
	COUNT("udp-tx", tx, batches);
	COUNT("udp-tx", tx, messages);
	COUNT("udp-tx", tx, datagrams);
	COUNT("udp-tx", tx, bytes);
	COUNT("udp-tx", tx, gso_fallbacks);
	COUNT("udp-tx", tx, pin_dropped);
	COUNT("udp-tx", tx, waits);
	COUNT("udp-tx", tx, drop_unreachable);
	COUNT("udp-tx", tx, drop_too_long);
	COUNT("udp-tx", tx, drop_no_buffer);
	COUNT("udp-tx", tx, drop_no_socket);
	COUNT("udp-tx", tx, drop_error);
	COUNT_HISTOGRAM("udp-tx", tx, gso_segments);
	COUNT_HISTOGRAM("udp-tx", &p->udp_tx.counters, queue_seen);
	COUNT("udp-tx", &p->udp_tx.counters, inline_sends);
	COUNT("udp-tx", &p->udp_tx.counters, wakes_given);
	GAUGE("udp-tx", "cpu_ns", read_thread_cpu_ns, &p->udp_tx.thread);
	if (!err)
		err = stats_add(s, "drops", "send_unreachable", &tx->drop_unreachable);
	if (!err)
		err = stats_add(s, "drops", "send_too_long", &tx->drop_too_long);
	if (!err)
		err = stats_add(s, "drops", "send_no_buffer", &tx->drop_no_buffer);
	if (!err)
		err = stats_add(s, "drops", "send_no_socket", &tx->drop_no_socket);
	if (!err)
		err = stats_add(s, "drops", "send_error", &tx->drop_error);
	err = register_channel(s, "udp-tx", &p->udp_tx_ring, err);
	err = register_park(s, "udp-tx", &p->udp_tx.park, err);

	const struct udp_rx_counters *rx = udp_rx_counters(p->udp_rx.rx);
	COUNT("udp-rx", rx, calls);
	COUNT("udp-rx", rx, messages);
	COUNT("udp-rx", rx, datagrams);
	COUNT("udp-rx", rx, bytes);
	COUNT("udp-rx", rx, truncated);
	COUNT("udp-rx", rx, empty);
	COUNT("udp-rx", rx, errors);
	COUNT("udp-rx", &p->udp_rx.dispatch.counters, views);
	COUNT("udp-rx", &p->udp_rx.dispatch.counters, handshakes);
	COUNT("udp-rx", &p->udp_rx.counters, waits);
	COUNT("udp-rx", &p->udp_rx.counters, sheds);
	COUNT("udp-rx", &p->udp_rx.counters, polls);
	COUNT("udp-rx", &p->udp_rx.counters, wakes_given);
	COUNT_HISTOGRAM("udp-rx", rx, gro_segments);
	GAUGE("udp-rx", "batches_in_use", read_pool_in_use, &p->udp_rx.batches);
	GAUGE("udp-rx", "batches_capacity", read_pool_count, &p->udp_rx.batches);
	GAUGE("udp-rx", "cpu_ns", read_thread_cpu_ns, &p->udp_rx.thread);
	if (!err)
		err = stats_add(s, "drops", "receive_truncated", &rx->truncated);
	err = register_park(s, "udp-rx", &p->udp_rx.park, err);
	err = register_drops(s, &p->udp_rx.drops, err);

	for (unsigned i = 0; i < p->nr; i++) {
		const struct tun_tx_thread *t = &p->tun_tx[i];

		snprintf(group, sizeof(group), "tun-tx%u", i);
		COUNT(group, &t->ingress.counters, views);
		COUNT(group, &t->ingress.counters, segments);
		COUNT(group, &t->ingress.counters, bytes);
		COUNT(group, &t->ingress.counters, packets);
		COUNT(group, &t->ingress.counters, frames);
		COUNT(group, &t->ingress.counters, keepalives);
		COUNT(group, t->ingress.queue, writes);
		COUNT(group, t->ingress.queue, written_bytes);
		COUNT(group, t->ingress.queue, write_errors);
		COUNT(group, &t->counters, inline_drains);
		COUNT(group, &t->counters, wakes_given);
		COUNT_HISTOGRAM(group, &t->ingress.counters, view_segments);
		COUNT_HISTOGRAM(group, &t->ingress.counters, frame_packets);
		COUNT_HISTOGRAM(group, &t->counters, queue_seen);
		GAUGE(group, "cpu_ns", read_thread_cpu_ns, &t->thread);
		err = register_channel(s, group, &p->views_ring[i], err);
		err = register_park(s, group, &t->park, err);
		err = register_drops(s, &t->drops, err);
	}
	return err;
}
