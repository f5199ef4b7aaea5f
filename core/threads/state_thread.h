/*
 * Thread state: owns struct device. Handshakes, timers, configuration, and the sealing of every train read
 * from TUN, in one order. Only one thread, so that nonces, sessions and peers need no lock.
 *
 * Whoever holds its baton, the *state holder*, plays its part: mostly the thread itself, and on few CPUs a
 * TUN reader that has pushed a train (state_thread_try_run_inline()). The state holder alone changes the
 * device, takes from its queues, and uses its GSO queue and batches.
 *
 *	                          called by
 *	new, register, start      control thread
 *	stop, join, free          control thread
 *	call, set_mtu             control thread
 *	device, notes,            control thread, while it wires the pipeline
 *	  handshakes
 *	submit_train, wake        tun-rx; both also while others do so
 *	trains_waiting            any
 *	try_run_inline            tun-rx, offline
 *	buffers_in_use            any
 */
#pragma once

#include "core/base/metrics.h"
#include "core/protocol/device.h"
#include "ring/channel.h"
#include "ring/train.h"
#include "tun/tun.h"

/* Trains of one TUN reader. Bounds what it has in flight, and so the latency that a burst can build up. */
#define STATE_THREAD_TRAINS_PER_READER 16

struct state_thread;
struct udp_tx_thread;

struct state_thread_config {
	unsigned nr_queues; /* TUN queues: readers, and tun-tx threads */
	uint32_t mtu;
	const struct aead_backend *aead;
	struct tun_queue *inject;     /* where ICMP errors go back to their senders; not owned */
	struct udp_tx_thread *udp_tx; /* where what was sealed goes; not owned */
	const _Atomic bool *stopping; /* outlives the thread */
};

/* -ENOMEM, or what the AEAD backend says. */
int state_thread_new(struct state_thread **out, const struct state_thread_config *config) MUST_CHECK;
void state_thread_register(const struct state_thread *t, struct metrics *m); /* see metrics_status() */
int state_thread_start(struct state_thread *t) MUST_CHECK;                   /* -EAGAIN */
/* *stopping is set: ends its waits. This and the two below accept NULL. */
void state_thread_stop(struct state_thread *t);
void state_thread_join(struct state_thread *t);
/* After every thread has ended. */
void state_thread_free(struct state_thread *t);

/* For RCU readers: what device.h says other threads may read. */
struct device *state_thread_device(struct state_thread *t);
/* The sending ends of its queues: notes from every tun-tx thread, handshake messages from udp-rx alone. */
struct mpsc_tx state_thread_notes(const struct state_thread *t);
struct spsc_tx state_thread_handshakes(const struct state_thread *t);

/* Runs fn(dev, arg) on the state thread between two drains and returns when it has run. */
void state_thread_call(struct state_thread *t, void (*fn)(struct device *dev, void *arg), void *arg);
void state_thread_set_mtu(struct state_thread *t, uint32_t mtu);

/* Hands the train on. There is room for STATE_THREAD_TRAINS_PER_READER of each reader. Wakes nobody. */
void state_thread_submit_train(struct state_thread *t, struct train *train);
unsigned state_thread_trains_waiting(const struct state_thread *t);
void state_thread_wake(struct state_thread *t);
/*
 * After a push. If nobody else is at it, seals and sends what waits, and has the thread woken for what is left;
 * otherwise whoever is at it, or the thread, will. The caller is a registered QSBR reader that is offline, and
 * sleeps on park while it waits for a buffer.
 */
void state_thread_try_run_inline(struct state_thread *t, struct park *park);

/* Buffers and handshake queue slots in use. */
unsigned state_thread_buffers_in_use(const struct state_thread *t);
