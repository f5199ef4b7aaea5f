/*
 * The five kinds of thread of a running interface, in packet order:
 *
 *	egress    tun_rx.c -> crypto.c -> udp_tx.c
 *	ingress   udp_rx.c -> tun_tx.c   (handshake messages: udp_rx.c -> crypto.c)
 *
 * A thread is woken where that pays, and otherwise its work is done in passing, in the same order, by the one
 * that has just made that work and now holds its baton:
 *
 *	- udp-rx does that of a tun-tx thread, and on few CPUs tun-rx that of crypto, unless there is
 *	  more to read meanwhile; see hand_over().
 *	- On few CPUs whoever seals does that of udp-tx. Datagrams that leave from two CPUs can change places
 *	  in the per-CPU queues behind the socket, so it does so only on the CPU of the last send, and udp-tx
 *	  goes to that CPU when it takes over.
 *
 * One cache-aligned context each, made by core/threads/pipeline.c before any thread starts and freed after all have
 * ended. Each loop drains to empty and then sleeps, RCU-offline, on its park or its file descriptors; it ends
 * when pipeline->stopping is seen.
 */
#pragma once

#include <pthread.h>
#include <semaphore.h>

#include "core/protocol/egress.h"
#include "core/protocol/ingress.h"
#include "core/threads/pipeline.h"
#include "ring/baton.h"
#include "ring/channel.h"
#include "ring/histogram.h"
#include "udp/receive.h"
#include "udp/send.h"

/* Train buffers of one TUN reader: bounds what it has in flight, and so the latency that a burst can build
 * up. */
#define TRAINS_PER_READER 16
/* Sealed batches between crypto and udp-tx. */
#define UDP_BATCHES 64
/* Of a call to the socket, after which their buffers go back: on a slow link crypto may wait for them. */
#define UDP_BATCHES_PER_CALL 8
/* Receive buffers, each of UDP_RX_MSGS messages, and the views that sort them by owner. */
#define UDP_RX_BATCHES 12
#define NOTES_SLOTS 4096
#define COMMANDS_SLOTS 64

/* How often work is done in passing before a CPU is looked for again. */
#define HAND_OVER_PAUSE 64
/* Below this average a packet read, or received, is a small one. */
#define SMALL_PACKET_BYTES 512

/* Of a producer: whom it does work for in passing, and whom not; see hand_over(). */
struct hand_over {
	unsigned pause; /* how often the next thread is still spared */
};

struct tun_rx_thread {
	CACHE_ALIGNED struct pipeline *pipeline;
	pthread_t thread;
	bool started;
	struct tun_queue *queue;
	struct park park;   /* sleeps here only while all its trains are in flight */
	struct pool trains; /* of struct train */
	struct mpsc_tx to_state;
	struct hand_over hand_over;
	struct drops drops;
	struct tun_rx_counters {
		counter_t trains, stalls; /* stalls: waited because every train was in flight */
		counter_t polls;          /* waits for the TUN queue */
		counter_t wakes_given;
		struct histogram train_packets; /* packets, or super-packets, in a train */
	} counters;
};

/* A call of the control thread, on its stack until done is posted. */
struct command {
	void (*fn)(struct device *dev, void *arg);
	void *arg;
	sem_t done;
};

struct state_thread {
	CACHE_ALIGNED struct pipeline *pipeline;
	pthread_t thread;
	bool started;
	struct park park;
	struct baton baton;          /* covers what follows */
	uint64_t looks_at_timers_ns; /* when its thread will, boottime; 0: it is awake */
	/* The holder sends in passing: what it has sealed and not sent yet, with the baton of udp-tx. */
	bool sending;
	unsigned nr_ready;
	struct udp_batch *ready[UDP_BATCHES_PER_CALL];
	struct mpsc_rx trains;
	struct spsc_rx handshakes;
	struct mpsc_rx notes;
	struct mpsc_rx commands;
	struct pool batches; /* of struct udp_batch */
	struct spsc_tx to_udp_tx;
	struct gso_queue queue;
	struct egress egress;
	struct device device;
	struct drops drops;
	struct crypto_counters {
		counter_t turns;             /* rounds of the loop that found work */
		counter_t inline_turns;      /* rounds that tun-rx did */
		counter_t wakes_given;       /* by this thread; those of inline turns are tun-rx's */
		struct histogram queue_seen; /* trains that waited when a turn took its first */
	} counters;
};

/* A thread's share in the sockets of the interface: it goes over to new ones when the generation moves, and
 * says so. */
struct socket_share {
	struct udp_sockets *sockets; /* own reference, may be NULL */
	unsigned generation;
	_Atomic unsigned adopted; /* generation in use; control thread waits for it */
};

struct udp_tx_thread {
	CACHE_ALIGNED struct pipeline *pipeline;
	pthread_t thread;
	bool started;
	struct park park;
	struct baton baton; /* covers what follows */
	struct spsc_rx batches;
	struct udp_tx *tx;
	struct socket_share share;
	int last_cpu;         /* that the last datagram left from; -1 none */
	bool sent_in_passing; /* ... by another thread */
	struct udp_tx_thread_counters {
		counter_t inline_sends; /* calls in passing, by tun-rx or crypto */
		counter_t wakes_given;
		struct histogram queue_seen; /* batches found at once */
	} counters;
};

struct udp_rx_thread {
	CACHE_ALIGNED struct pipeline *pipeline;
	pthread_t thread;
	bool started;
	int wake_fd; /* eventfd: stop, or new sockets */
	struct park park;
	struct pool batches;    /* of struct udp_rx_batch */
	struct pool views;      /* of struct ingress_view */
	struct pool handshakes; /* of struct handshake_message */
	struct udp_rx *rx;
	struct udp_rx_batch *batch; /* being filled */
	struct dispatch dispatch;
	struct hand_over hand_over;
	struct socket_share share;
	struct drops drops;
	struct udp_rx_thread_counters {
		counter_t waits; /* times it waited for a buffer */
		counter_t sheds; /* batches whose data was dropped because none came */
		counter_t polls; /* waits for the sockets */
		counter_t wakes_given;
	} counters;
};

struct tun_tx_thread {
	CACHE_ALIGNED struct pipeline *pipeline;
	pthread_t thread;
	bool started;
	struct park park;
	struct baton baton; /* covers what follows */
	struct spsc_rx views;
	struct ingress ingress;
	struct drops drops;
	struct tun_tx_counters {
		counter_t inline_drains;     /* by udp-rx; written by it */
		counter_t wakes_given;       /* by this thread; those of inline drains are udp-rx's */
		struct histogram queue_seen; /* views that waited when a drain began */
	} counters;
};

struct pipeline {
	struct pipeline_config config;
	_Atomic bool stopping;
	_Atomic bool tun_failed;
	/* Published by the control thread: pointer first, then generation with release. */
	struct udp_sockets *sockets;
	_Atomic unsigned sockets_generation;
	struct channel egress_ring, handshake_ring, notes_ring, command_ring, udp_tx_ring;
	struct mpsc_tx to_commands;
	struct channel views_ring[TUN_TX_THREADS_MAX];
	struct state_thread state;
	struct udp_tx_thread udp_tx;
	struct udp_rx_thread udp_rx;
	unsigned nr; /* TUN queues */
	struct tun_rx_thread *tun_rx;
	struct tun_tx_thread *tun_tx;
};

/*
 * Thread tun-rx, on few CPUs, after a push; a registered QSBR reader that is offline. Seals and sends what
 * waits, unless somebody else is about to. While it waits for a buffer it sleeps on park, its own.
 */
void state_thread_run_inline(struct state_thread *state, struct park *park);
/* The state holder: the far side of its GSO queue. */
void state_thread_deliver(void *state, struct udp_batch *batch);
struct udp_batch *state_thread_wait_batch(void *state);

/* The state holder. true: it holds that of udp-tx too, which has nothing left to send. */
bool udp_tx_borrow(struct udp_tx_thread *udp_tx);
/* The same, then. Sends what leaves at once: the number of batches, 0 too if this is another CPU now. */
unsigned udp_tx_in_passing(struct udp_tx_thread *udp_tx, struct udp_batch **batches, unsigned nr) MUST_CHECK;

/* The holder of the baton, a registered QSBR reader that is online. Opens and writes until the channel is
 * empty. */
void tun_tx_thread_drain(struct tun_tx_thread *tun_tx);

/*
 * Is the next thread to do its work itself, beside this one? more: there is more to read meanwhile. small: it
 * is small packets, of which reading is a large part of the work. waiting: what is in the next thread's queue.
 * On few CPUs a thread that has not yet begun with what it was given before found none free, and is spared for
 * a while.
 */
static inline bool hand_over(struct hand_over *h, bool more, bool small, unsigned waiting)
{
	if (!more)
		return false;
	if (small || !park_few_cpus())
		return true;
	if (h->pause) {
		h->pause--;
		return false;
	}
	if (waiting > 1)
		h->pause = HAND_OVER_PAUSE;
	return waiting <= 1;
}

void *tun_rx_thread_run(void *tun_rx);
void *state_thread_run(void *crypto);
void *udp_tx_thread_run(void *udp_tx_thread);
void *udp_rx_thread_run(void *udp_rx_thread);
void *tun_tx_thread_run(void *tun_tx);

static inline bool pipeline_stopping(const struct pipeline *p)
{
	return atomic_load_explicit(&p->stopping, memory_order_relaxed);
}

/* CLOCK_BOOTTIME, CLOCK_REALTIME in nanoseconds. */
uint64_t clock_boottime_ns(void);
uint64_t clock_realtime_ns(void);

/* Owner thread of share: takes over the published sockets if they changed. */
void socket_share_update(struct socket_share *share, struct pipeline *p);
