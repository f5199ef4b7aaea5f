/*
 * A TUN queue in memory, for simulation and stress: what a test pushes is received, what is sent goes to the
 * test's sink. Faults can be injected. Any thread may call any function; one mutex guards all of it.
 */
#pragma once

#include "tun/tun.h"

struct tun_mem;

/* A packet with the fields of its vnet header; of train_packet, offset is unused. */
struct tun_mem_packet {
	struct train_packet meta;
	uint8_t data[];
};

/*
 * Called in the writer's thread, outside the lock, with the pieces of a frame joined; valid during the call.
 */
typedef void (*tun_mem_sink_fn)(void *arg, const struct train_packet *meta, const uint8_t *data);

/*
 * offloads: TUN_CAN_* that send() accepts. capacity: packets that wait in either direction. sink NULL: frames
 * are kept for tun_mem_take(). -ENOMEM.
 */
int tun_mem_new(struct tun_mem **out, unsigned index, unsigned offloads, unsigned capacity,
	tun_mem_sink_fn sink, void *arg) MUST_CHECK;
/* No thread may use the queue any more. NULL is accepted. */
void tun_mem_free(struct tun_mem *mem);
struct tun_queue *tun_mem_queue(struct tun_mem *mem);

/*
 * Makes meta->len (up to 65535) bytes at data readable. -EAGAIN when capacity packets wait, -EINVAL, -ENOMEM.
 * Copies.
 */
int tun_mem_push(struct tun_mem *mem, const struct train_packet *meta, const void *data) MUST_CHECK;
/* Pushes a plain packet. */
int tun_mem_push_plain(struct tun_mem *mem, const void *data, uint32_t len) MUST_CHECK;
/* The oldest frame sent and not yet taken, or NULL. The caller frees it with free(). Only without a sink. */
struct tun_mem_packet *tun_mem_take(struct tun_mem *mem);

/* From now on every send() fails with err (0: works again): -EAGAIN, -ENETDOWN, ... */
void tun_mem_fail_send(struct tun_mem *mem, int err);
/*
 * From now on frames with these offloads are refused with -EOPNOTSUPP, as by a kernel that accepted the
 * offload but cannot do it.
 */
void tun_mem_reject(struct tun_mem *mem, unsigned offloads);
/* The device is deleted: recv_many() and send() give -ENODEV, recv_wait() returns. */
void tun_mem_unplug(struct tun_mem *mem);
