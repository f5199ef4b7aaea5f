#include "core/threads/udp_tx_thread.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "core/base/metrics.h"
#include "core/threads/hand_over.h"
#include "core/threads/worker.h"
#include "udp/send.h"

_Static_assert(UDP_TX_THREAD_BATCHES_PER_CALL <= UDP_TX_BATCHES_MAX, "what udp_tx_send() takes at once");

#define NO_CPU (-1)

/*
 * Who may touch what:
 *
 *	worker           the thread; its park any, to wake it
 *	baton            any, by its own functions
 *	batches_tx       the state holder: it alone pushes
 *	counters         the baton's holder, except wakes_given: the thread
 *	everything else  the baton's holder
 *
 * It reads nothing that RCU protects.
 */
struct udp_tx_thread {
	CACHE_ALIGNED struct worker worker;
	struct baton baton;
	struct channel batches_ring;
	struct spsc_tx batches_tx;

	/* Above is what the state holder reads with each push; what sending writes starts on a line of its own. */
	CACHE_ALIGNED struct spsc_rx batches;
	struct udp_tx *tx;
	struct socket_share share;
	int last_cpu;          /* that the last datagram left from; NO_CPU: none has */
	bool last_sent_inline; /* ... by the state holder */
	struct udp_tx_thread_counters {
		counter_t inline_sends; /* calls by the state holder */
		counter_t wakes_given;
		struct histogram queue_seen; /* batches found at once */
	} counters;
};

_Static_assert(offsetof(struct udp_tx_thread, batches) % CACHE_LINE == 0, "see there");

static void *run_udp_tx(void *arg);
static uint64_t turn(void *arg);
static void send_from(int cpu, struct udp_tx_thread *t, struct udp_batch **batches, unsigned nr);

int udp_tx_thread_new(
	struct udp_tx_thread **out, const struct socket_slot *sockets, const _Atomic bool *stopping)
{
	struct udp_tx_thread *t = aligned_alloc(CACHE_LINE, sizeof(*t));

	if (!t)
		return -ENOMEM;
	memset(t, 0, sizeof(*t));
	worker_init(&t->worker, stopping);
	baton_init(&t->baton, &t->worker.park);
	socket_share_init(&t->share, sockets);
	t->last_cpu = NO_CPU;
	int err = udp_tx_new(&t->tx, NULL, stopping);
	if (!err)
		err = spsc_init(
			&t->batches_ring, UDP_TX_THREAD_SLOTS, &t->worker.park, &t->batches_tx, &t->batches);
	if (err) {
		udp_tx_thread_free(t);
		return err;
	}
	*out = t;
	return 0;
}

int udp_tx_thread_start(struct udp_tx_thread *t)
{
	return worker_start(&t->worker, "udp-tx", run_udp_tx, t);
}

void udp_tx_thread_stop(struct udp_tx_thread *t)
{
	if (t)
		worker_wake(&t->worker);
}

void udp_tx_thread_join(struct udp_tx_thread *t)
{
	if (t)
		worker_join(&t->worker);
}

void udp_tx_thread_free(struct udp_tx_thread *t)
{
	if (!t)
		return;
	socket_share_done(&t->share);
	udp_tx_free(t->tx);
	channel_done(&t->batches_ring);
	free(t);
}

void udp_tx_thread_wake(struct udp_tx_thread *t)
{
	park_wake(&t->worker.park);
}

bool udp_tx_thread_has_adopted(const struct udp_tx_thread *t)
{
	return socket_share_adopted(&t->share);
}

void udp_tx_thread_submit(struct udp_tx_thread *t, struct udp_batch *batch)
{
	/* There is a slot for every batch. */
	CHECK(spsc_push(t->batches_tx, batch));
}

bool udp_tx_thread_begin_inline(struct udp_tx_thread *t)
{
	/* Asked first: on many CPUs the baton, which belongs to another CPU's cache, is never touched. */
	if (park_cpus() > PARK_FEW_CPUS || !baton_try(&t->baton))
		return false;

	const struct hand_over_output decision = hand_over(&(struct hand_over_input){
		.consumer = HAND_OVER_TO_UDP_TX,
		.cpus = park_cpus(),
		.queue_len = channel_len(t->batches.ch),
		.on_last_cpu = sched_getcpu() == t->last_cpu,
	});
	if (decision.how == HAND_OVER_WAKE) {
		baton_pass(&t->baton);
		return false;
	}
	socket_share_update(&t->share);
	return true;
}

unsigned udp_tx_thread_send_inline(struct udp_tx_thread *t, struct udp_batch **batches, unsigned nr)
{
	assert(baton_held_by_me(&t->baton));
	if (sched_getcpu() != t->last_cpu)
		return 0;
	t->last_sent_inline = true;
	counter_add(&t->counters.inline_sends, 1);
	return udp_tx_try(t->tx, t->share.sockets, batches, nr);
}

void udp_tx_thread_end_inline(struct udp_tx_thread *t)
{
	baton_pass(&t->baton);
}

static void *run_udp_tx(void *arg)
{
	struct udp_tx_thread *t = arg;

	park_count_wakes(&t->counters.wakes_given);
	worker_consume(&t->worker, &t->baton, false, turn, t);
	return NULL;
}

/* One call's worth of batches. */
static uint64_t turn(void *arg)
{
	struct udp_tx_thread *t = arg;
	struct udp_batch *batches[UDP_TX_THREAD_BATCHES_PER_CALL];
	unsigned nr = 0;

	assert(baton_held_by_me(&t->baton));
	socket_share_update(&t->share);
	while (nr < ARRAY_LEN(batches) && (batches[nr] = spsc_pop(t->batches)))
		nr++;
	if (!nr)
		return PARK_FOREVER;
	histogram_add(&t->counters.queue_seen, nr);
	if (t->last_sent_inline && sched_getcpu() != t->last_cpu)
		send_from(t->last_cpu, t, batches, nr);
	else
		udp_tx_send(t->tx, t->share.sockets, batches, nr);
	t->last_cpu = sched_getcpu();
	t->last_sent_inline = false;
	/* Backwards: the first one is taken again first, and is the one still in cache. */
	for (unsigned i = nr; i--;)
		pool_put(batches[i]);
	return 0;
}

/* Goes to that CPU for one call, behind what left from there inline and may still lie in its queues. Seldom needed. */
static void send_from(int cpu, struct udp_tx_thread *t, struct udp_batch **batches, unsigned nr)
{
	cpu_set_t before, there;
	const bool known = !sched_getaffinity(0, sizeof(before), &before);

	CPU_ZERO(&there);
	CPU_SET((unsigned)cpu, &there);
	if (known)
		IGNORE_RESULT(
			"a CPU that is gone has no queues", sched_setaffinity(0, sizeof(there), &there));
	udp_tx_send(t->tx, t->share.sockets, batches, nr);
	if (known)
		IGNORE_RESULT("it was allowed before", sched_setaffinity(0, sizeof(before), &before));
}

static METRICS_DEFINE_ADD(add_counters, struct udp_tx_thread_counters, METRICS_UDP_TX_COUNTERS)

void udp_tx_thread_register(const struct udp_tx_thread *t, struct metrics *m)
{
	const enum metrics_group group = METRICS_GROUP_UDP_TX;

	metrics_add_udp_tx(m, group, 0, udp_tx_counters(t->tx));
	add_counters(m, group, 0, &t->counters);
	metrics_add_read(m, group, 0, METRIC_CPU_NS, worker_cpu_ns, &t->worker);
	metrics_add_queue(m, group, 0, &t->batches_ring);
	metrics_add_park(m, group, 0, &t->worker.park.counters);
}
