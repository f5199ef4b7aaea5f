/*
 * Thread tun-tx, one per TUN queue: opens the views that udp-rx has sorted out for it, checks and coalesces the
 * packets, and writes them to its queue. It owns the sessions of its share of the peers: their replay windows,
 * and the fields of struct peer marked from_tun_tx. Whoever holds its baton plays its part: the thread, or
 * udp-rx, inline.
 *
 *	                          called by
 *	new, register, start      control thread
 *	stop, join, free          control thread
 *	views                     control thread, while it wires the pipeline
 *	waiting, wake             udp-rx
 *	try_run_inline            udp-rx, online
 */
#pragma once

#include "core/base/metrics.h"
#include "core/protocol/device.h"
#include "core/threads/state_thread.h"
#include "ring/channel.h"
#include "tun/tun.h"

struct tun_tx_thread;

struct tun_tx_thread_config {
	unsigned number;         /* of the thread, its queue, and peer->owner */
	struct tun_queue *queue; /* not owned */
	const struct aead_backend *aead;
	struct state_thread *state;   /* not owned */
	const _Atomic bool *stopping; /* outlives the thread */
};

/* -ENOMEM, or what the AEAD backend says. */
int tun_tx_thread_new(struct tun_tx_thread **out, const struct tun_tx_thread_config *config) MUST_CHECK;
void tun_tx_thread_register(const struct tun_tx_thread *t, struct metrics *m); /* see metrics_status() */
int tun_tx_thread_start(struct tun_tx_thread *t) MUST_CHECK;                   /* -EAGAIN */
/* *stopping is set: ends its waits. This and the two below accept NULL. */
void tun_tx_thread_stop(struct tun_tx_thread *t);
void tun_tx_thread_join(struct tun_tx_thread *t);
/* After every thread has ended. */
void tun_tx_thread_free(struct tun_tx_thread *t);

/* The sending end of its channel of views: udp-rx's alone. A push wakes nobody. */
struct spsc_tx tun_tx_thread_views(const struct tun_tx_thread *t);
unsigned tun_tx_thread_waiting(const struct tun_tx_thread *t);
void tun_tx_thread_wake(struct tun_tx_thread *t);
/*
 * Opens and writes all that waits, and returns true, unless the thread is at it: then false, and the thread is to
 * be woken for what was pushed. The caller is a registered QSBR reader.
 */
bool tun_tx_thread_try_run_inline(struct tun_tx_thread *t) MUST_CHECK;
