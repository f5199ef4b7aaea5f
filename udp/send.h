/*
 * Sending batches: sendmmsg, each message with UDP_SEGMENT, traffic class and source pin, and what to do when
 * the kernel refuses. Each datagram is sent or counted as dropped exactly once.
 *
 * - EINVAL, ENODEV, EADDRNOTAVAIL or no route, with a pin: the pin is cleared and the batch tried again.
 * - EIO, EINVAL or EMSGSIZE with UDP_SEGMENT: sent in pieces; when that works, remembered for this
 *   destination for UDP_GSO_RETRY_NS. Whether UDP_SEGMENT works depends on the way to the destination: on its
 *   path MTU (the kernel refuses longer segments), on the device that leads there, on IPsec. So one
 *   destination's refusal must not cost all others their GSO. Only when the first UDP_GSO_BELIEVE destinations
 *   have all refused, and not for the length, does the whole socket go without for UDP_GSO_RETRY_NS. Then one
 *   batch tries again: where no device can do it, that is one failing call each time. Once a destination has
 *   accepted, it takes as many refusals as can be remembered.
 * - EAGAIN: waits until writable; after UDP_TX_WAIT_MS without progress, the datagrams of this call that
 *   still find no room are counted.
 * - ENOBUFS, ENOMEM: a few short waits.
 * - ICMP errors, no route: once more (it may have been an older packet's), then counted.
 */
#pragma once

#include "ring/base.h"
#include "ring/histogram.h"
#include "udp/gso_queue.h"
#include "udp/socket.h"

#define UDP_TX_BATCHES_MAX 64
#define UDP_TX_WAIT_MS 2000
#define UDP_GSO_RETRY_NS (30 * NS_PER_SEC)
#define UDP_GSO_BELIEVE 4 /* destinations */

/* The syscalls, replaceable for fault injection. */
struct udp_tx_sys {
	int (*sendmmsg)(int fd, struct mmsghdr *msgs, unsigned nr, int flags);
	/* 0, -ETIMEDOUT after timeout_ms, or other -errno */
	int (*wait_writable)(int fd, int timeout_ms);
	/* monotonic */
	uint64_t (*now_ns)(void);
};
extern const struct udp_tx_sys udp_tx_sys_kernel;

struct udp_tx_counters {
	counter_t calls, batches, datagrams, bytes;
	counter_t messages;      /* those of all calls: a batch is one, in pieces it is many */
	counter_t gso_fallbacks; /* batches re-sent in pieces */
	counter_t pin_dropped;   /* source pins given up */
	counter_t waits;         /* times the socket buffer or the device queue was full */
	counter_t drop_unreachable, drop_too_long, drop_no_buffer, drop_no_socket, drop_error; /* datagrams */
	struct histogram gso_segments; /* datagrams in a message */
};

struct udp_tx;

/*
 * Control thread. -ENOMEM. sys NULL: the kernel. Once *stop (NULL: never) is true, udp_tx_send() drops
 * instead of waiting.
 */
int udp_tx_new(struct udp_tx **out, const struct udp_tx_sys *sys, const _Atomic bool *stop) MUST_CHECK;
/* NULL is accepted. */
void udp_tx_free(struct udp_tx *tx);
/*
 * One thread at a time. Sends nr (1..UDP_TX_BATCHES_MAX) batches in order, waiting while the socket is full;
 * what cannot be sent is counted. sockets NULL: all dropped as no_socket. The batches stay the caller's. A
 * pin that the kernel refuses is cleared in the batch's endpoint; the peer's own pin is refreshed by its next
 * packet and forgotten when it retries its handshake.
 */
void udp_tx_send(struct udp_tx *tx, struct udp_sockets *sockets, struct udp_batch **batches, unsigned nr);
/*
 * The same, but sends only what leaves at once and as it is; returns how many batches have left. Whatever
 * keeps the next one back, it and all after it are then for udp_tx_send(), which waits and tries again.
 */
unsigned udp_tx_try(
	struct udp_tx *tx, struct udp_sockets *sockets, struct udp_batch **batches, unsigned nr) MUST_CHECK;
/* Written by whoever sends, read by any thread. Lives as long as tx. */
const struct udp_tx_counters *udp_tx_counters(const struct udp_tx *tx);
