#include "core/threads/tun_rx_thread.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <urcu-qsbr.h>

#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/threads/hand_over.h"
#include "core/threads/worker.h"

struct tun_rx_thread {
	CACHE_ALIGNED struct worker worker;
	struct tun_rx_thread_config config;
	struct pool trains;        /* of struct train; this thread takes, the state holder gives back */
	unsigned hand_over_spares; /* see hand_over() */
	uint64_t errors_told;      /* of the queue's read errors */
	struct tun_rx_counters {
		counter_t trains, stalls; /* stalls: waited because every train was in flight */
		counter_t polls;          /* waits for the TUN queue */
		counter_t wakes_given;
		struct histogram train_packets; /* packets, or super-packets, in a train */
	} counters;
};

static void *run_tun_rx(void *arg);
static struct train *next_train(struct tun_rx_thread *t);
static int fill(struct tun_rx_thread *t, struct train *train, bool more);
static void tell_errors(struct tun_rx_thread *t);
static void submit(struct tun_rx_thread *t, struct train *train, bool more);

int tun_rx_thread_new(struct tun_rx_thread **out, const struct tun_rx_thread_config *config)
{
	struct tun_rx_thread *t = aligned_alloc(CACHE_LINE, sizeof(*t));

	if (!t)
		return -ENOMEM;
	memset(t, 0, sizeof(*t));
	worker_init(&t->worker, config->stopping);
	t->config = *config;
	const int err =
		pool_init(&t->trains, STATE_THREAD_TRAINS_PER_READER, sizeof(struct train), &t->worker.park);
	if (err) {
		free(t);
		return err;
	}
	*out = t;
	return 0;
}

int tun_rx_thread_start(struct tun_rx_thread *t)
{
	char name[16];

	snprintf(name, sizeof(name), "tun-rx%u", t->config.number);
	return worker_start(&t->worker, name, run_tun_rx, t);
}

void tun_rx_thread_stop(struct tun_rx_thread *t)
{
	if (!t)
		return;
	t->config.queue->ops->stop(t->config.queue);
	worker_wake(&t->worker);
}

void tun_rx_thread_join(struct tun_rx_thread *t)
{
	if (t)
		worker_join(&t->worker);
}

void tun_rx_thread_free(struct tun_rx_thread *t)
{
	if (!t)
		return;
	pool_done(&t->trains);
	free(t);
}

unsigned tun_rx_thread_buffers_in_use(const struct tun_rx_thread *t)
{
	return pool_in_use(&t->trains);
}

static void *run_tun_rx(void *arg)
{
	struct tun_rx_thread *t = arg;
	bool more = false;
	struct train *train;
	int nr = 0;

	/* Online only while it works inline: see state_thread_try_run_inline(). */
	rcu_register_thread();
	rcu_thread_offline();
	park_count_wakes(&t->counters.wakes_given);
	while (!worker_stopping(&t->worker) && (train = next_train(t))) {
		nr = fill(t, train, more);
		if (nr < 0) {
			pool_put(train);
			break;
		}
		/* A train that filled up: there is probably more to read. */
		more = train->nr == TRAIN_PACKETS_MAX || train->used > TRAIN_BYTES - TRAIN_READ_ROOM;
		submit(t, train, more);
	}
	if (nr < 0 && nr != -ECANCELED)
		t->config.failed(t->config.arg, nr);
	rcu_unregister_thread();
	return NULL;
}

/* An empty train. Backpressure: waits while all are in flight. NULL when stopping. */
static struct train *next_train(struct tun_rx_thread *t)
{
	struct train *train = pool_get(&t->trains);

	if (!train) {
		counter_add(&t->counters.stalls, 1);
		train = pool_wait(&t->trains, t->worker.stopping);
	}
	if (train)
		train_reset(train);
	return train;
}

/* Reads into the train, sleeping until there is something. Packets, or -errno; -ECANCELED when stopping. */
static int fill(struct tun_rx_thread *t, struct train *train, bool more)
{
	struct tun_queue *queue = t->config.queue;
	int nr = 0;

	if (more || park_give_way())
		nr = queue->ops->recv_many(queue, train);
	while (!nr) {
		counter_add(&t->counters.polls, 1);
		nr = queue->ops->recv_wait(queue);
		if (!nr)
			nr = queue->ops->recv_many(queue, train);
		tell_errors(t);
	}
	return nr;
}

/* The queue waits such an error out and tries again, which may go on for ever: somebody should know. */
static void tell_errors(struct tun_rx_thread *t)
{
	const uint64_t errors = counter_read(&t->config.queue->read.errors);

	if (likely(errors == t->errors_told))
		return;
	t->errors_told = errors;
	log_limited(LOG_LEVEL_WARN, LOG_TUN,
		"reading of TUN queue %u failed and is tried again; %llu times so far", t->config.number,
		(unsigned long long)errors);
}

static void submit(struct tun_rx_thread *t, struct train *train, bool more)
{
	struct state_thread *state = t->config.state;
	const bool small = train->used < train->nr * HAND_OVER_SMALL_BYTES;

	counter_add(&t->counters.trains, 1);
	histogram_add(&t->counters.train_packets, train->nr);
	state_thread_submit_train(state, train); /* from here on the state holder's */

	const struct hand_over_output decision = hand_over(&(struct hand_over_input){
		.consumer = HAND_OVER_TO_STATE,
		.cpus = park_cpus(),
		.queue_len = state_thread_trains_waiting(state),
		.more_to_read = more,
		.small_packets = small,
		.spares = t->hand_over_spares,
	});
	t->hand_over_spares = decision.spares;
	if (decision.how == HAND_OVER_INLINE)
		state_thread_try_run_inline(state, &t->worker.park);
	else
		state_thread_wake(state);
}

static METRICS_DEFINE_ADD(add_counters, struct tun_rx_counters, METRICS_TUN_RX_COUNTERS)

void tun_rx_thread_register(const struct tun_rx_thread *t, struct metrics *m)
{
	const enum metrics_group group = METRICS_GROUP_TUN_RX;
	const unsigned number = t->config.number;

	add_counters(m, group, number, &t->counters);
	metrics_add_pool(m, group, number, METRIC_TRAINS_IN_FLIGHT, METRIC_TRAINS_CAPACITY, &t->trains);
	metrics_add_read(m, group, number, METRIC_CPU_NS, worker_cpu_ns, &t->worker);
	metrics_add_tun_read(m, group, number, &t->config.queue->read);
	metrics_add_park(m, group, number, &t->worker.park.counters);
}
