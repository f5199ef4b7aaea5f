/*
 * The egress train: what one drain of one TUN queue read, and the unit that crosses the MPSC ring to the
 * state thread. A train belongs to one owner at a time: the tun-rx thread that fills it, then the ring, then
 * the state holder, which gives it back to that tun-rx thread's pool.
 *
 * Packets lie one after the other in data[]. Each may be a super-packet (TSO/USO) of up to 64 KB. A read is
 * only started while TRAIN_READ_ROOM bytes are free, so no read is ever truncated. At least TRAIN_GAP bytes
 * after each packet hold nothing, so that it can be padded with zeros to a multiple of 16 where it lies.
 */
#pragma once

#include "ring/base.h"
#include "ring/pool.h"

#define TRAIN_BYTES (128 * 1024)
#define TRAIN_READ_ROOM (65535 + 1 + 64)
#define TRAIN_GAP 16
#define TRAIN_PACKETS_MAX 256

/* One packet as read, with the fields of its virtio_net_hdr in host order. */
struct train_packet {
	uint32_t offset;   /* of the IP header in data[]; a multiple of 16 */
	uint32_t len;      /* bytes of IP packet */
	uint8_t flags;     /* VIRTIO_NET_HDR_F_* */
	uint8_t gso_type;  /* VIRTIO_NET_HDR_GSO_*; USO is 5 */
	uint16_t gso_size; /* payload bytes per segment */
	uint16_t csum_start;
	uint16_t csum_offset;
};

struct train {
	struct pool_item item;
	uint32_t nr;   /* packets */
	uint32_t used; /* bytes of data[] in use */
	struct train_packet packet[TRAIN_PACKETS_MAX];
	CACHE_ALIGNED uint8_t data[TRAIN_BYTES];
};

static inline void train_reset(struct train *t)
{
	t->nr = 0;
	t->used = 0;
}
