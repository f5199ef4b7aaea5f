/*
 * Receiving: recvmmsg with UDP_GRO into a batch of large buffers. One batch is one recvmmsg; each message in
 * it is a run of equal datagrams (the last may be shorter) from one source. udp-rx owns a batch until it
 * hands views of it to other threads; each view holds a reference; the last one returns it to its pool.
 */
#pragma once

#include "ring/base.h"
#include "ring/histogram.h"
#include "ring/pool.h"
#include "udp/endpoint.h"
#include "udp/socket.h"

#define UDP_RX_MSGS 16
#define UDP_RX_MSG_BYTES 65536

struct udp_rx_msg {
	struct endpoint from; /* sender, with the local address it came to as the pin */
	uint8_t ecn;          /* outer ECN bits, 0..3 */
	uint16_t segment_len; /* length of each datagram but the last; 1..len */
	uint32_t len;         /* bytes in all; never 0 */
	uint8_t *data; /* in the batch's data[], in order, but not necessarily at this message's number */
};

struct udp_rx_batch {
	struct pool_item item;
	_Atomic unsigned refs;
	unsigned nr;
	struct udp_rx_msg msg[UDP_RX_MSGS];
	CACHE_ALIGNED uint8_t data[UDP_RX_MSGS][UDP_RX_MSG_BYTES];
};

/* One more reference, for a view about to be handed on. Holder of a reference. */
static inline void udp_rx_batch_get(struct udp_rx_batch *batch)
{
	atomic_fetch_add_explicit(&batch->refs, 1, memory_order_relaxed);
}

/* Drops a reference; the last one gives the batch back to its pool. Any thread. */
static inline void udp_rx_batch_put(struct udp_rx_batch *batch)
{
	/* Release and acquire: every holder's last access comes before the batch is filled again. */
	if (atomic_fetch_sub_explicit(&batch->refs, 1, memory_order_acq_rel) == 1)
		pool_put(batch);
}

struct udp_rx_counters {
	counter_t calls, messages, datagrams, bytes;
	counter_t truncated;           /* datagrams lost because they or their control data did not fit */
	counter_t empty;               /* datagrams without payload */
	counter_t errors;              /* pending socket errors consumed */
	struct histogram gro_segments; /* datagrams in a message */
};

/* The syscall, replaceable for fault injection. */
struct udp_rx_sys {
	int (*recvmmsg)(int fd, struct mmsghdr *msgs, unsigned nr, int flags, struct timespec *timeout);
};
extern const struct udp_rx_sys udp_rx_sys_kernel;

/* The message headers and control buffers of udp-rx. */
struct udp_rx;

/* Control thread. -ENOMEM. sys NULL: the kernel. */
int udp_rx_new(struct udp_rx **out, const struct udp_rx_sys *sys) MUST_CHECK;
/* NULL is accepted. */
void udp_rx_free(struct udp_rx *rx);
/*
 * udp-rx. Fills batch from fd without blocking and gives it one reference, the caller's. A GRO run longer
 * than its buffer is cut to whole datagrams; what is cut off, a truncated single datagram, and a message with
 * truncated control data are counted as truncated. A pending socket error (ICMP) is consumed and not fatal.
 * Returns messages, -errno only for errors that will not go away (-EBADF). 0: nothing to read, or only what
 * was not worth keeping: wait for the socket level-triggered.
 */
int udp_receive(struct udp_rx *rx, int fd, struct udp_rx_batch *batch) MUST_CHECK;
/* Written by udp-rx, read by any thread. Lives as long as rx. */
const struct udp_rx_counters *udp_rx_counters(const struct udp_rx *rx);
