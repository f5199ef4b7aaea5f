/*
 * Thread udp-rx: receives runs of datagrams, sorts them by the tun-tx thread that owns their session, and hands
 * handshake messages to the state thread. Does the work of a tun-tx thread inline where that pays. Sleeps in
 * poll() on its sockets, or on its park while it waits for a buffer.
 *
 * All functions: control thread, unless they say otherwise.
 */
#pragma once

#include "core/base/metrics.h"
#include "core/threads/socket_share.h"
#include "core/threads/state_thread.h"
#include "core/threads/tun_tx_thread.h"

struct udp_rx_thread;

struct udp_rx_thread_config {
	struct state_thread *state;    /* not owned */
	struct tun_tx_thread **tun_tx; /* by peer->owner; the array too outlives the thread */
	unsigned nr_tun_tx;
	const struct socket_slot *sockets; /* outlives the thread */
	const _Atomic bool *stopping;      /* outlives the thread */
};

/* -ENOMEM, -EMFILE. */
int udp_rx_thread_new(struct udp_rx_thread **out, const struct udp_rx_thread_config *config) MUST_CHECK;
void udp_rx_thread_register(const struct udp_rx_thread *t, struct metrics *m); /* see metrics_status() */
int udp_rx_thread_start(struct udp_rx_thread *t) MUST_CHECK;                   /* -EAGAIN */
/* *stopping is set: ends its waits. This and the two below accept NULL. */
void udp_rx_thread_stop(struct udp_rx_thread *t);
void udp_rx_thread_join(struct udp_rx_thread *t);
/* After every thread has ended. */
void udp_rx_thread_free(struct udp_rx_thread *t);
/* New sockets have been published. */
void udp_rx_thread_wake(struct udp_rx_thread *t);
/* Has it gone over to the sockets published last? */
bool udp_rx_thread_has_adopted(const struct udp_rx_thread *t);
/* Any thread. Of all kinds, including the receive batch that it holds while it waits for datagrams. */
unsigned udp_rx_thread_buffers_in_use(const struct udp_rx_thread *t);
