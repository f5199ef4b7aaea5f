/*
 * Joins opened packets, in the order they arrive, into TUN frames: TCP runs as TSO, UDP runs as USO, all
 * others as they are. Payload is not copied: a frame is a list of pieces of the caller's buffers, which must
 * stay until coalesce_flush(). Never reorders packets of a flow; packets it cannot attribute to a flow
 * (fragments, ICMP, extension headers) flush what is open before them. Packets are joined
 * only where the kernel's GRO would join them. One per thread tun-tx.
 */
#pragma once

#include "tun/tun.h"

#define COALESCE_FLOWS 8

/* Called for each finished frame, in order. The frame is the coalescer's; it is reused after the call. */
typedef void (*coalesce_emit_fn)(void *arg, struct tun_frame *frame, unsigned packets);

struct coalesce_flow;

struct coalesce {
	coalesce_emit_fn emit;
	void *arg;
	unsigned offloads; /* TUN_CAN_* of the queue; set before each run */
	unsigned nr_open;
	struct coalesce_flow *order[COALESCE_FLOWS]; /* the open, latest used first; then the free */
	struct coalesce_flow *flows;                 /* COALESCE_FLOWS */
	struct tun_frame *single;                    /* for packets that are no part of a flow */
};

/* Control thread. -ENOMEM. */
int coalesce_init(struct coalesce *c, coalesce_emit_fn emit, void *arg) MUST_CHECK;
/* Accepts a zeroed coalescer. */
void coalesce_done(struct coalesce *c);

/*
 * Adds one complete IP packet of len bytes (already trimmed to its IP total length and authenticated). Its
 * header may be modified. May emit frames.
 */
void coalesce_add(struct coalesce *c, uint8_t *packet, uint32_t len);
/* Emits all that is open. Afterwards no buffer handed in before is referenced. */
void coalesce_flush(struct coalesce *c);

/*
 * Writer thread. For a frame that send() refused with -EOPNOTSUPP: sends it as the packets it was made of,
 * complete with checksums. 0 when all are written, else what send() gave for the first that was not;
 * frame->pieces_sent counts those before it, and another call with the same frame goes on from there, so that
 * after -EAGAIN nothing is lost or sent twice. Copies: for the few frames until the caller has taken over the
 * queue's new offloads. May be called from emit().
 */
int tun_frame_split_send(struct tun_queue *queue, struct tun_frame *frame) MUST_CHECK;
