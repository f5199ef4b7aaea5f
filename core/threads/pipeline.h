/*
 * The threads of a running interface, wired as in the drawing in README.md, around one struct device. Made
 * from the consumers backwards, so that each thread finds whom it hands work to; started when everything is in
 * place; stopped all at once.
 *
 * All functions: control thread, unless they say otherwise.
 */
#pragma once

#include "core/base/metrics.h"
#include "core/protocol/device.h"
#include "tun/tun.h"
#include "udp/socket.h"

struct pipeline;

struct pipeline_config {
	unsigned
		tun_threads; /* 1..TUN_TX_THREADS_MAX: TUN queues, and for each a tun-rx and a tun-tx thread */
	const struct aead_backend *aead;
	uint32_t mtu;
	struct tun_queue **queues; /* tun_threads of them; not owned */
	struct metrics *metrics;   /* counters are registered here; not owned; may be NULL */
	void (*tun_failed)(
		void *arg, int err); /* a tun-rx thread, once: TUN cannot be read any more; may be NULL */
	void *arg;
};

/* Starts every thread. -ENOMEM, -EAGAIN, -EIO. */
int pipeline_start(struct pipeline **out, const struct pipeline_config *config) MUST_CHECK;
/* Stops and joins every thread, frees everything. NULL is accepted. */
void pipeline_stop(struct pipeline *p);

/*
 * Runs fn(dev, arg) on the state thread between two drains and returns when it has run. The only way for
 * configuration to reach the device.
 */
void pipeline_call(struct pipeline *p, void (*fn)(struct device *dev, void *arg), void *arg);
/*
 * udp-rx and udp-tx go over to these sockets (NULL: none); returns when neither uses the old ones any more.
 * Takes a reference.
 */
void pipeline_set_sockets(struct pipeline *p, struct udp_sockets *sockets);
void pipeline_set_mtu(struct pipeline *p, uint32_t mtu);
/*
 * Any thread. Buffers of all pools in use: without traffic one for each tun-rx thread and one for udp-rx, which
 * hold it while they wait. What stays above that has leaked.
 */
unsigned pipeline_buffers_in_use(const struct pipeline *p);
