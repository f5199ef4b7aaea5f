#include "core/threads/tun_tx_thread.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/metrics.h"
#include "core/protocol/ingress.h"
#include "core/threads/worker.h"

/*
 * Who may touch what:
 *
 *	worker           the thread; its park any, to wake it
 *	baton            any, by its own functions
 *	views_tx         udp-rx: it alone pushes
 *	counters         the baton's holder, except wakes_given: the thread, and inline_drains: udp-rx
 *	everything else  the baton's holder
 */
struct tun_tx_thread {
	CACHE_ALIGNED struct worker worker;
	struct baton baton;
	unsigned number;
	struct channel views_ring;
	struct spsc_tx views_tx;

	struct spsc_rx views;
	struct aead *aead;
	struct ingress ingress;
	struct drops drops;
	struct tun_tx_counters {
		counter_t inline_drains;
		counter_t wakes_given;       /* by this thread; those of inline drains are udp-rx's */
		struct histogram queue_seen; /* views that waited when a drain began */
	} counters;
};

static void *run_tun_tx(void *arg);
static uint64_t drain(void *arg);

int tun_tx_thread_new(struct tun_tx_thread **out, const struct tun_tx_thread_config *config)
{
	struct tun_tx_thread *t = aligned_alloc(CACHE_LINE, sizeof(*t));
	int err = 0;

	if (!t)
		return -ENOMEM;
	memset(t, 0, sizeof(*t));
	worker_init(&t->worker, config->stopping);
	baton_init(&t->baton, &t->worker.park);
	t->number = config->number;
	t->aead = config->aead->create(&err);
	/* Who pushes decides whether to wake: hand_over.h. */
	if (!err)
		err = spsc_init(&t->views_ring, CHANNEL_SLOTS, NULL, &t->views_tx, &t->views);
	if (!err)
		err = ingress_init(&t->ingress, state_thread_device(config->state), config->number, &t->drops,
			t->aead, config->queue, state_thread_notes(config->state));
	if (err) {
		tun_tx_thread_free(t);
		return err;
	}
	t->ingress.baton = &t->baton;
	*out = t;
	return 0;
}

int tun_tx_thread_start(struct tun_tx_thread *t)
{
	char name[16];

	snprintf(name, sizeof(name), "tun-tx%u", t->number);
	return worker_start(&t->worker, name, run_tun_tx, t);
}

void tun_tx_thread_stop(struct tun_tx_thread *t)
{
	if (t)
		worker_wake(&t->worker);
}

void tun_tx_thread_join(struct tun_tx_thread *t)
{
	if (t)
		worker_join(&t->worker);
}

void tun_tx_thread_free(struct tun_tx_thread *t)
{
	if (!t)
		return;
	ingress_done(&t->ingress);
	aead_free(t->aead);
	channel_done(&t->views_ring);
	free(t);
}

struct spsc_tx tun_tx_thread_views(const struct tun_tx_thread *t)
{
	return t->views_tx;
}

unsigned tun_tx_thread_waiting(const struct tun_tx_thread *t)
{
	return channel_len(&t->views_ring);
}

void tun_tx_thread_wake(struct tun_tx_thread *t)
{
	park_wake(&t->worker.park);
}

bool tun_tx_thread_try_run_inline(struct tun_tx_thread *t)
{
	if (!baton_try(&t->baton))
		return false;
	drain(t);
	baton_pass(&t->baton);
	counter_add(&t->counters.inline_drains, 1);
	return true;
}

static void *run_tun_tx(void *arg)
{
	struct tun_tx_thread *t = arg;

	park_count_wakes(&t->counters.wakes_given);
	worker_consume(&t->worker, &t->baton, true, drain, t);
	return NULL;
}

/* The baton's holder: until the channel is empty. */
static uint64_t drain(void *arg)
{
	struct tun_tx_thread *t = arg;
	const unsigned waiting = channel_len(t->views.ch);
	struct ingress_view *view;

	assert(baton_held_by_me(&t->baton));
	if (waiting)
		histogram_add(&t->counters.queue_seen, waiting);
	while (!worker_stopping(&t->worker) && (view = spsc_pop(t->views))) {
		ingress_open(&t->ingress, view, clock_boottime_ns());
		ingress_view_put(view);
		rcu_quiescent_state();
	}
	return PARK_FOREVER;
}

static METRICS_DEFINE_ADD(add_counters, struct tun_tx_counters, METRICS_TUN_TX_COUNTERS)
static METRICS_DEFINE_ADD(add_ingress, struct ingress_counters, METRICS_INGRESS_COUNTERS)

void tun_tx_thread_register(const struct tun_tx_thread *t, struct metrics *m)
{
	const enum metrics_group group = METRICS_GROUP_TUN_TX;

	add_ingress(m, group, t->number, &t->ingress.counters);
	metrics_add_tun_write(m, group, t->number, &t->ingress.queue->written);
	add_counters(m, group, t->number, &t->counters);
	metrics_add_read(m, group, t->number, METRIC_CPU_NS, worker_cpu_ns, &t->worker);
	metrics_add_queue(m, group, t->number, &t->views_ring);
	metrics_add_park(m, group, t->number, &t->worker.park.counters);
	metrics_add_drops(m, &t->drops);
}
