/*
 * The threads, rings and pools of a running interface, wired as in the drawing in README.md, around one
 * struct device.
 */
#pragma once

#include "core/protocol/device.h"
#include "core/base/stats.h"
#include "tun/tun.h"
#include "udp/socket.h"

struct pipeline;

struct pipeline_config {
	unsigned tun_threads; /* 1..64: TUN queues, reader threads and tun-tx threads */
	const struct aead_backend *aead;
	uint32_t mtu;
	struct tun_queue **queues;              /* tun_threads of them; not owned */
	struct stats *stats;                    /* counters are registered here; not owned */
	void (*tun_failed)(void *arg, int err); /* any thread: the device is gone (deleted); may be NULL */
	void *arg;
};

/* Control thread. Starts every thread. -ENOMEM, -EAGAIN, -EIO. */
int pipeline_start(struct pipeline **out, const struct pipeline_config *config) MUST_CHECK;
/* Control thread. Stops and joins every thread, frees everything. NULL is accepted. */
void pipeline_stop(struct pipeline *p);

/*
 * Control thread. Runs fn(dev, arg) on the state thread between two drains and returns when it has run. The
 * only way for configuration to reach the device.
 */
void pipeline_call(struct pipeline *p, void (*fn)(struct device *dev, void *arg), void *arg);
/*
 * Control thread. udp-rx and udp-tx go over to these sockets (NULL: none); returns when neither uses the old
 * ones any more. Takes a reference.
 */
void pipeline_set_sockets(struct pipeline *p, struct udp_sockets *sockets);
/* Any thread. */
void pipeline_set_mtu(struct pipeline *p, uint32_t mtu);
