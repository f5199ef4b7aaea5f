/*
 * Receiving: recvmmsg with UDP_GRO into a batch of large buffers. One batch is one recvmmsg; each message in it is a run of equal datagrams
 * (the last may be shorter) from one source. udp-rx owns a batch until it hands views of it to other threads; each view holds a
 * reference; the last one returns it to its pool.
 */
#pragma once

#include "ring/base.h"
#include "ring/pool.h"
#include "udp/endpoint.h"
#include "udp/socket.h"

#define UDP_RX_MSGS 16
#define UDP_RX_MSG_BYTES 65536
#define UDP_RX_SEGS_MAX (UDP_RX_MSGS * 128)

struct udp_rx_msg {
	struct endpoint from; /* sender, with the local address and interface it came to as the pin */
	uint8_t ecn;          /* outer ECN bits, 0..3 */
	uint16_t segment_len; /* length of each datagram but the last */
	uint32_t len;         /* bytes in all */
	uint8_t *data;
};

struct udp_rx_batch {
	struct pool_item item;
	_Atomic unsigned refs;
	unsigned nr;
	struct udp_rx_msg msg[UDP_RX_MSGS];
	CACHE_ALIGNED uint8_t data[UDP_RX_MSGS][UDP_RX_MSG_BYTES];
};

struct udp_rx_counters {
	counter_t calls, messages, datagrams, bytes, truncated, errors;
};

/*
 * udp-rx. Fills batch from fd without blocking; control buffers are reset on every call. A truncated or control-truncated message is counted and left out. A GRO run longer than
 * its buffer is cut to whole datagrams. A pending socket error (ICMP) is consumed and not fatal. Returns messages (0: nothing to read), -errno
 * only for errors that will not go away (-EBADF).
 */
int udp_receive(int fd, struct udp_rx_batch *batch, struct udp_rx_counters *counters) MUST_CHECK;
