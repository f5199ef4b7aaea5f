/*
 * Hand-over: a thread has made work for the next one. Does it wake that thread, or do the work itself, inline?
 * All of it is decided here, by one pure function; who asks, and what it does with the answer:
 *
 *	tun-rx -> state     tun_rx_thread.c    a train was pushed
 *	udp-rx -> tun-tx    udp_rx_thread.c    views of a receive batch were pushed
 *	state  -> udp-tx    udp_tx_thread.c    a batch was sealed, and is not pushed yet
 *
 * Inline work is done under the consumer's baton (ring/baton.h), in the order of its queue. Whether the baton
 * is free is not decided here: it can only be found out by taking it, and whoever does not get it leaves the
 * work to the holder.
 *
 * The reasons, each measured (perf/README.md):
 *
 *	- A wake-up and the switch to the other thread cost more than most trains. With nothing else to do
 *	  the producer would go to sleep as the consumer wakes: inline.
 *	- With more to read, two threads beside each other read and seal (or receive and open) at once: wake,
 *	  if there is a CPU for the other one. Reading is a large part of the work for small packets, so there
 *	  the other thread is worth its switches always; otherwise, on one or two CPUs, only while one is free
 *	  for it.
 *	- Whether a CPU is free shows in the consumer's queue: if earlier work still waits, its thread got no
 *	  CPU. Then it is not woken for the next HAND_OVER_SPARES hand-overs: finding out costs a wake-up.
 *	- On three CPUs and more tun-rx always wakes state: sealing is the longest stage and has a CPU of its
 *	  own.
 *	- Of several tun-tx threads that got views from one batch only the last is spared: the others work
 *	  meanwhile.
 *	- Datagrams that leave from two CPUs can change places in the per-CPU queues below the socket. So the
 *	  state holder sends by itself only from the CPU that the last datagram left from, and only if no
 *	  batch waits in udp-tx's queue, which must leave first.
 */
#pragma once

#include "ring/base.h"
#include "ring/park.h"

#define HAND_OVER_SPARES 64
/* Small packets: a train's are shorter than this on average, those of a receive batch's first run all are. */
#define HAND_OVER_SMALL_BYTES 512

enum hand_over {
	HAND_OVER_WAKE,
	HAND_OVER_INLINE,
};

enum hand_over_consumer {
	HAND_OVER_TO_STATE,
	HAND_OVER_TO_TUN_TX,
	HAND_OVER_TO_UDP_TX,
};

struct hand_over_input {
	enum hand_over_consumer consumer;
	unsigned cpus; /* that this process may run on: park_cpus() */
	unsigned
		queue_len; /* items in the consumer's queue; to state and tun-tx with what was pushed just now */
	/* to state and tun-tx */
	bool more_to_read; /* the producer's source holds more, which it could read meanwhile */
	bool small_packets;
	unsigned spares;    /* what the last decision for this producer returned; at first 0 */
	bool others_behind; /* to tun-tx: more consumers have got something from this batch */
	/* to udp-tx */
	bool on_last_cpu; /* the last datagram left from the CPU that asks */
};

struct hand_over_output {
	enum hand_over how;
	unsigned spares; /* how often this producer spares its consumer the wake-up from now on */
};

/* Pure. Any thread. */
static inline struct hand_over_output hand_over(const struct hand_over_input *in)
{
	const bool few_cpus = in->cpus <= PARK_FEW_CPUS;
	struct hand_over_output out = {.how = HAND_OVER_WAKE, .spares = in->spares};

	switch (in->consumer) {
	case HAND_OVER_TO_UDP_TX:
		if (few_cpus && in->on_last_cpu && !in->queue_len)
			out.how = HAND_OVER_INLINE;
		return out;
	case HAND_OVER_TO_STATE:
		if (!few_cpus)
			return out;
		break;
	case HAND_OVER_TO_TUN_TX:
		if (in->others_behind)
			return out;
		break;
	}

	if (!in->more_to_read) {
		out.how = HAND_OVER_INLINE;
	} else if (few_cpus && !in->small_packets) {
		if (in->spares) {
			out.how = HAND_OVER_INLINE;
			out.spares--;
		} else if (in->queue_len > 1) {
			out.how = HAND_OVER_INLINE;
			out.spares = HAND_OVER_SPARES;
		}
	}
	return out;
}
