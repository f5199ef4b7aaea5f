/*
 * Thread tun-rx, one per TUN queue: reads what waits there into a train, hands the train to the state thread, or
 * seals and sends it inline. Sleeps in the kernel for packets, or on its park while all its trains are in
 * flight: that is the backpressure, and the kernel's queue is the place that drops.
 *
 * All functions: control thread.
 */
#pragma once

#include "core/base/metrics.h"
#include "core/threads/state_thread.h"
#include "tun/tun.h"

struct tun_rx_thread;

struct tun_rx_thread_config {
	unsigned number;              /* of the thread and its queue */
	struct tun_queue *queue;      /* not owned */
	struct state_thread *state;   /* not owned */
	const _Atomic bool *stopping; /* outlives the thread */
	/* The queue cannot be read any more. That thread, once. */
	void (*failed)(void *arg, int err);
	void *arg;
};

/* -ENOMEM. */
int tun_rx_thread_new(struct tun_rx_thread **out, const struct tun_rx_thread_config *config) MUST_CHECK;
void tun_rx_thread_register(const struct tun_rx_thread *t, struct metrics *m); /* see metrics_status() */
int tun_rx_thread_start(struct tun_rx_thread *t) MUST_CHECK;                   /* -EAGAIN */
/* *stopping is set: ends its waits. */
void tun_rx_thread_stop(struct tun_rx_thread *t);
void tun_rx_thread_join(struct tun_rx_thread *t);
/* After every thread has ended. NULL is accepted, as by the two above. */
void tun_rx_thread_free(struct tun_rx_thread *t);
/* Any thread. Of its trains, including the one that it holds while it waits for packets. */
unsigned tun_rx_thread_buffers_in_use(const struct tun_rx_thread *t);
