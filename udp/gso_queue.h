/*
 * The ordered GSO queue: sealed datagrams gather here, in send order, in batches that one sendmsg with
 * UDP_SEGMENT can carry. Owned by whoever holds the state baton; the cipher writes straight into the slots.
 *
 * A batch belongs to one connection (source pin, destination) and has one traffic class byte. A datagram is
 * appended only to the newest batch of its connection, and only if that has its class and it is not longer
 * than that batch's segments; a shorter one is appended and seals the batch. Batches leave in the order in
 * which they were opened, so datagrams of a connection never pass each other: not even those of a flow that a
 * router has begun to mark. Caps: GSO_SEGMENTS_MAX segments and GSO_BYTES_MAX bytes.
 */
#pragma once

#include "ring/base.h"
#include "ring/pool.h"
#include "udp/endpoint.h"

#define GSO_SEGMENTS_MAX 64
#define GSO_BYTES_MAX (65535 - 40 - 8)
#define GSO_DATAGRAM_MAX (65535 - 20 - 8) /* alone in its batch; both families carry it */
#define GSO_CONNECTIONS_MAX 64            /* open batches looked at; when more are open all are flushed */
#define GSO_FLUSH_THRESHOLD 4             /* default of gso_queue.flush_threshold */

struct udp_batch {
	struct pool_item item;
	struct endpoint endpoint;
	uint8_t tos;            /* outer traffic class byte: DSCP and ECN */
	uint16_t segment_len;   /* of every datagram but the last */
	uint16_t nr;            /* datagrams */
	uint32_t len;           /* bytes in data[] */
	bool sealed;            /* nothing may be appended any more */
	struct udp_batch *next; /* queue order, while in the queue */
	CACHE_ALIGNED uint8_t data[65536];
};

struct gso_queue_counters {
	counter_t dropped; /* datagrams for which no batch could be had (only while stopping) */
};

struct gso_queue {
	struct pool *pool; /* of struct udp_batch; owner: the thread of this queue */
	/* Takes the batch over, in order. May not fail: it waits if it must. */
	void (*deliver)(void *arg, struct udp_batch *batch);
	/* Blocks until the pool has a batch again; NULL result (stopping) drops the datagram. */
	struct udp_batch *(*wait)(void *arg);
	void *arg;
	/*
	 * Deliver early once this many sealed batches wait, so that udp-tx sends while the rest of the drain
	 * is sealed. 0: only flush. Set by gso_queue_init() to GSO_FLUSH_THRESHOLD; the owner may change it.
	 */
	unsigned flush_threshold;
	unsigned nr_sealed;             /* among the batches not yet delivered */
	struct udp_batch *first, *last; /* not yet delivered, in order */
	unsigned nr_open;
	/* Newest batch of each connection, unless it is sealed. The one used last is at the end. */
	struct udp_batch *open[GSO_CONNECTIONS_MAX];
	uint32_t open_tag[GSO_CONNECTIONS_MAX]; /* of their endpoints: what the search looks at first */
	struct gso_queue_counters counters;
};

void gso_queue_init(struct gso_queue *q, struct pool *pool, void (*deliver)(void *, struct udp_batch *),
	struct udp_batch *(*wait)(void *), void *arg);
/*
 * A slot of len bytes (1..GSO_DATAGRAM_MAX) for the next datagram to that endpoint. The slot is part of the
 * queue from now on and must be filled before the next call on the queue. May deliver what lies before it;
 * flushes when the pool runs dry, then waits. NULL only if wait() gave NULL: counted as dropped.
 */
uint8_t *gso_queue_slot(struct gso_queue *q, const struct endpoint *endpoint, uint8_t tos, uint32_t len);
/* Delivers everything, in order. To be called at the end of each drain. */
void gso_queue_flush(struct gso_queue *q);
