/*
 * The TUN side behind one small interface, with two backends: the kernel's multi-queue device (tun_device.c)
 * and an in-memory one (tun_mem.c) for simulation and stress. A queue is used by one reading and one writing
 * thread.
 */
#pragma once

#include <sys/uio.h>

#include "ring/base.h"
#include "ring/train.h"

/* Offloads that a queue accepts on write and produces on read. */
#define TUN_CAN_TSO 1u /* TCP super-packets, IPv4 and IPv6 */
#define TUN_CAN_USO 2u /* UDP super-packets */

/* VIRTIO_NET_HDR_GSO_UDP_L4: named only by headers of Linux 6.2 and later. */
#define TUN_GSO_UDP_L4 5

/*
 * Header and payload pieces of one packet or super-packet to write. iov[0] is left free for the vnet header.
 */
#define TUN_FRAME_IOV_MAX 132
struct tun_frame {
	uint8_t flags;    /* VIRTIO_NET_HDR_F_* */
	uint8_t gso_type; /* VIRTIO_NET_HDR_GSO_* */
	uint16_t hdr_len;
	uint16_t gso_size;
	uint16_t csum_start;
	uint16_t csum_offset;
	uint32_t len;         /* bytes of IP packet over all pieces */
	uint32_t nr_iov;      /* including iov[0] */
	uint32_t pieces_sent; /* see tun_frame_split_send(); 0 in a new frame */
	struct iovec iov[TUN_FRAME_IOV_MAX];
};

struct tun_queue;

struct tun_queue_ops {
	/*
	 * Reader thread. Appends packets to the train until nothing is left to read or the train is full
	 * (fewer than TRAIN_READ_ROOM bytes or no packet slot left). Returns how many were added: 0 means
	 * nothing to read now; recv_wait() is to be called next. An error that may pass is counted and ends
	 * the call as if there were no more to read. -EBADFD, -ENODEV or other -errno: no read can succeed
	 * any more. Malformed packets are counted and skipped.
	 */
	int (*recv_many)(struct tun_queue *queue, struct train *train);
	/*
	 * Reader thread. Sleeps until readable or stop(); longer, up to 64 ms, while reads fail. 0, or
	 * -ECANCELED when stopped, or -errno: the device is gone.
	 */
	int (*recv_wait)(struct tun_queue *queue);
	/* Writer thread. Is there room for a frame now? Returns false only if send() would return -EAGAIN. */
	bool (*send_ready)(struct tun_queue *queue);
	/*
	 * Writer thread. Writes one frame whole, or nothing. 0, -EAGAIN (no room), -ENETDOWN (interface is
	 * down; what kernels report as EIO or EINVAL for that is mapped where it can be told), -EOPNOTSUPP
	 * (the kernel refuses this super-packet: the caller re-sends in pieces), other -errno. The frame
	 * stays the caller's.
	 */
	int (*send)(struct tun_queue *queue, struct tun_frame *frame);
	/*
	 * Any thread. Sends an ICMP error, an IP packet without options, to its destination from an address of
	 * this machine in place of its source. Never waits, and whether it arrives is not known. false: not
	 * possible now, and send() is what is left. NULL: never possible.
	 */
	bool (*send_error)(struct tun_queue *queue, const uint8_t *packet, uint32_t len);
	/* Any thread. Makes recv_wait() return -ECANCELED from now on. */
	void (*stop)(struct tun_queue *queue);
};

/* By the reader. */
struct tun_read_counters {
	counter_t reads, packets, bytes;
	counter_t malformed; /* no IP packet, skipped */
	counter_t errors;    /* reads that failed and were tried again */
};

/* By the writer. */
struct tun_write_counters {
	counter_t writes, bytes, errors;
	counter_t fallbacks; /* super-packets that the kernel refused and that went in pieces */
};

struct tun_queue {
	const struct tun_queue_ops *ops;
	unsigned index;
	_Atomic unsigned offloads; /* TUN_CAN_*; the writer clears a bit while the kernel refuses that kind */
	/* Each on a line of its own. */
	CACHE_ALIGNED struct tun_read_counters read;
	CACHE_ALIGNED struct tun_write_counters written;
};
