/*
 * Thread udp-tx: sends sealed batches, in the order in which they were submitted, with one sendmmsg for several.
 * Waits where the socket has no room. On one or two CPUs the state holder sends inline, in place of this
 * thread, as long as everything leaves at once and from the CPU of the last datagram: two CPUs have two queues
 * below the socket, and what lies in one can be passed by what goes through the other.
 *
 *	                                 called by
 *	new, register, start, wake       control thread
 *	stop, join, free                 control thread
 *	submit, begin/send/end_inline    the state holder
 *	has_adopted                      control thread
 */
#pragma once

#include "core/base/metrics.h"
#include "core/threads/socket_share.h"
#include "udp/gso_queue.h"

/* Batches that may be submitted and not yet sent: all that there are. */
#define UDP_TX_THREAD_SLOTS 64
/* Batches per sendmmsg call. Their buffers go back only after it, and on a slow link the state holder may wait for one. */
#define UDP_TX_THREAD_BATCHES_PER_CALL 8

struct udp_tx_thread;

/* stopping and sockets outlive the thread. -ENOMEM. */
int udp_tx_thread_new(struct udp_tx_thread **out, const struct socket_slot *sockets,
	const _Atomic bool *stopping) MUST_CHECK;
void udp_tx_thread_register(const struct udp_tx_thread *t, struct metrics *m); /* see metrics_status() */
int udp_tx_thread_start(struct udp_tx_thread *t) MUST_CHECK;                   /* -EAGAIN */
/* *stopping is set: ends its waits. This and the two below accept NULL. */
void udp_tx_thread_stop(struct udp_tx_thread *t);
void udp_tx_thread_join(struct udp_tx_thread *t);
/* After every thread has ended. */
void udp_tx_thread_free(struct udp_tx_thread *t);
/* New sockets have been published. */
void udp_tx_thread_wake(struct udp_tx_thread *t);
/* Has it gone over to the sockets published last? */
bool udp_tx_thread_has_adopted(const struct udp_tx_thread *t);

/* For the thread to send, after all that was submitted before. The batch goes back to its pool when it has left. */
void udp_tx_thread_submit(struct udp_tx_thread *t, struct udp_batch *batch);
/*
 * May the caller send inline? If so it holds the baton until udp_tx_thread_end_inline(), and nothing that was
 * submitted waits.
 */
bool udp_tx_thread_begin_inline(struct udp_tx_thread *t);
/*
 * Sends, in order, what leaves at once, and returns how many batches that is; fewer too when the caller has
 * been moved to another CPU. The rest is to be submitted. The batches stay the caller's.
 */
unsigned udp_tx_thread_send_inline(
	struct udp_tx_thread *t, struct udp_batch **batches, unsigned nr) MUST_CHECK;
void udp_tx_thread_end_inline(struct udp_tx_thread *t);
