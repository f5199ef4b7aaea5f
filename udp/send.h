/*
 * Sending batches from udp-tx: sendmmsg, each message with UDP_SEGMENT, traffic class and source pin, and every fallback of shared/DESIGN.md section 5.
 */
#pragma once

#include "ring/base.h"
#include "udp/gso_queue.h"
#include "udp/socket.h"

#define UDP_TX_BATCHES_MAX 64

/* The syscalls, replaceable for fault injection. */
struct udp_tx_sys {
	int (*sendmmsg)(int fd, struct mmsghdr *msgs, unsigned nr, int flags);
	int (*wait_writable)(int fd); /* 0 or -errno */
};
extern const struct udp_tx_sys udp_tx_sys_kernel;

struct udp_tx_counters {
	counter_t calls, batches, datagrams, bytes;
	counter_t gso_fallbacks;  /* batches re-sent in pieces */
	counter_t pin_dropped;    /* source pins given up */
	counter_t waits;          /* times the socket buffer was full */
	counter_t drop_unreachable, drop_too_long, drop_no_buffer, drop_no_socket, drop_error; /* datagrams */
};

struct udp_tx;

/* Control thread. -ENOMEM. sys NULL: the kernel. */
int udp_tx_new(struct udp_tx **out, const struct udp_tx_sys *sys) MUST_CHECK;
void udp_tx_free(struct udp_tx *tx);
/*
 * udp-tx. Sends nr (1..UDP_TX_BATCHES_MAX) batches in order, waiting while the socket is full; what cannot be sent is counted. sockets NULL: all dropped as no_socket.
 * The batches stay the caller's. A pin that the kernel refuses is cleared in the batch's endpoint; the peer learns it with *pin_lost (may be NULL) set for that batch index.
 */
void udp_tx_send(struct udp_tx *tx, struct udp_sockets *sockets, struct udp_batch **batches, unsigned nr, uint64_t *pin_lost_mask);
const struct udp_tx_counters *udp_tx_counters(const struct udp_tx *tx);
