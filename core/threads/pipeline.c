#include "core/threads/pipeline.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "core/threads/rcu_worker.h"
#include "core/threads/socket_share.h"
#include "core/threads/state_thread.h"
#include "core/threads/tun_rx_thread.h"
#include "core/threads/tun_tx_thread.h"
#include "core/threads/udp_rx_thread.h"
#include "core/threads/udp_tx_thread.h"

#define ADOPT_WAIT_STEP_NS (100 * 1000)

struct pipeline {
	struct pipeline_config config;
	_Atomic bool stopping;
	_Atomic bool tun_failed; /* has been reported */
	struct socket_slot sockets;
	struct udp_tx_thread *udp_tx;
	struct state_thread *state;
	struct udp_rx_thread *udp_rx;
	struct tun_tx_thread *tun_tx[TUN_TX_THREADS_MAX];
	struct tun_rx_thread *tun_rx[TUN_TX_THREADS_MAX];
};

static int make(struct pipeline *p);
static int register_metrics(const struct pipeline *p);
static int start(struct pipeline *p);
static void tun_failed(void *arg, int err);

int pipeline_start(struct pipeline **out, const struct pipeline_config *config)
{
	struct pipeline *p = calloc(1, sizeof(*p));
	int err;

	CHECK(config->tun_threads >= 1 && config->tun_threads <= TUN_TX_THREADS_MAX);
	if (!p)
		return -ENOMEM;
	p->config = *config;
	err = make(p);
	if (!err)
		err = register_metrics(p);
	/* Every thread finds everything in place: from here on nothing is initialised any more. */
	if (!err)
		err = start(p);
	if (err) {
		pipeline_stop(p);
		return err;
	}
	*out = p;
	return 0;
}

void pipeline_stop(struct pipeline *p)
{
	if (!p)
		return;
	const unsigned nr = p->config.tun_threads;

	atomic_store(&p->stopping, true);
	for (unsigned i = 0; i < nr; i++)
		tun_rx_thread_stop(p->tun_rx[i]);
	udp_rx_thread_stop(p->udp_rx);
	state_thread_stop(p->state);
	udp_tx_thread_stop(p->udp_tx);
	for (unsigned i = 0; i < nr; i++)
		tun_tx_thread_stop(p->tun_tx[i]);

	for (unsigned i = 0; i < nr; i++)
		tun_rx_thread_join(p->tun_rx[i]);
	udp_rx_thread_join(p->udp_rx);
	state_thread_join(p->state);
	udp_tx_thread_join(p->udp_tx);
	for (unsigned i = 0; i < nr; i++)
		tun_tx_thread_join(p->tun_tx[i]);

	/* No thread is left: whatever lies in the rings and pools goes with their memory. */
	if (p->config.metrics)
		metrics_clear(p->config.metrics);
	udp_rx_thread_free(p->udp_rx);
	for (unsigned i = 0; i < nr; i++) {
		tun_rx_thread_free(p->tun_rx[i]);
		tun_tx_thread_free(p->tun_tx[i]);
	}
	state_thread_free(p->state);
	udp_tx_thread_free(p->udp_tx);
	socket_slot_done(&p->sockets);
	free(p);
}

void pipeline_call(struct pipeline *p, void (*fn)(struct device *dev, void *arg), void *arg)
{
	state_thread_call(p->state, fn, arg);
}

void pipeline_set_sockets(struct pipeline *p, struct udp_sockets *sockets)
{
	struct udp_sockets *old = socket_slot_publish(&p->sockets, sockets);

	udp_rx_thread_wake(p->udp_rx);
	udp_tx_thread_wake(p->udp_tx);
	/* Both give up their references when they go over, so that the port is free when we return. */
	while (!udp_rx_thread_has_adopted(p->udp_rx) || !udp_tx_thread_has_adopted(p->udp_tx))
		nanosleep(&(struct timespec){.tv_nsec = ADOPT_WAIT_STEP_NS}, NULL);
	udp_sockets_put(old);
}

void pipeline_set_mtu(struct pipeline *p, uint32_t mtu)
{
	state_thread_set_mtu(p->state, mtu);
}

unsigned pipeline_buffers_in_use(const struct pipeline *p)
{
	unsigned n = state_thread_buffers_in_use(p->state) + udp_rx_thread_buffers_in_use(p->udp_rx);

	for (unsigned i = 0; i < p->config.tun_threads; i++)
		n += tun_rx_thread_buffers_in_use(p->tun_rx[i]);
	return n;
}

/* Consumers first. What was made before a failure is taken down by pipeline_stop(). */
static int make(struct pipeline *p)
{
	const struct pipeline_config *config = &p->config;
	const unsigned nr = config->tun_threads;
	int err = udp_tx_thread_new(&p->udp_tx, &p->sockets, &p->stopping);

	if (!err)
		err = state_thread_new(&p->state, &(struct state_thread_config){
							  .nr_queues = nr,
							  .mtu = config->mtu,
							  .aead = config->aead,
							  .inject = config->queues[0],
							  .udp_tx = p->udp_tx,
							  .stopping = &p->stopping,
						  });
	for (unsigned i = 0; i < nr && !err; i++)
		err = tun_tx_thread_new(&p->tun_tx[i], &(struct tun_tx_thread_config){
							       .number = i,
							       .queue = config->queues[i],
							       .aead = config->aead,
							       .state = p->state,
							       .stopping = &p->stopping,
						       });
	if (!err)
		err = udp_rx_thread_new(&p->udp_rx, &(struct udp_rx_thread_config){
							    .state = p->state,
							    .tun_tx = p->tun_tx,
							    .nr_tun_tx = nr,
							    .sockets = &p->sockets,
							    .stopping = &p->stopping,
						    });
	for (unsigned i = 0; i < nr && !err; i++)
		err = tun_rx_thread_new(&p->tun_rx[i], &(struct tun_rx_thread_config){
							       .number = i,
							       .queue = config->queues[i],
							       .state = p->state,
							       .stopping = &p->stopping,
							       .failed = tun_failed,
							       .arg = p,
						       });
	return err;
}

static int register_metrics(const struct pipeline *p)
{
	struct metrics *m = p->config.metrics;

	metrics_add_process(m);
	for (unsigned i = 0; i < p->config.tun_threads; i++) {
		tun_rx_thread_register(p->tun_rx[i], m);
		tun_tx_thread_register(p->tun_tx[i], m);
	}
	state_thread_register(p->state, m);
	udp_tx_thread_register(p->udp_tx, m);
	udp_rx_thread_register(p->udp_rx, m);
	return metrics_status(m);
}

static int start(struct pipeline *p)
{
	int err = rcu_worker_start();

	if (!err)
		err = state_thread_start(p->state);
	if (!err)
		err = udp_tx_thread_start(p->udp_tx);
	if (!err)
		err = udp_rx_thread_start(p->udp_rx);
	for (unsigned i = 0; i < p->config.tun_threads && !err; i++) {
		err = tun_tx_thread_start(p->tun_tx[i]);
		if (!err)
			err = tun_rx_thread_start(p->tun_rx[i]);
	}
	return err;
}

/* Every reader sees a device that is gone; the first one says so. */
static void tun_failed(void *arg, int err)
{
	struct pipeline *p = arg;

	if (!atomic_exchange(&p->tun_failed, true) && p->config.tun_failed)
		p->config.tun_failed(p->config.arg, err);
}
