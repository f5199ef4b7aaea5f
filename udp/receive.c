#include "udp/receive.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>

/* Packet info of either family, traffic class, GRO segment length; with room to spare. */
#define CONTROL_BYTES 128
/* Pending errors, and batches of nothing worth keeping, that one call gets over. */
#define TRIES_MAX 16

_Static_assert(
	CONTROL_BYTES >= CMSG_SPACE(sizeof(struct in6_pktinfo)) + 2 * CMSG_SPACE(sizeof(int)), "control");

struct udp_rx {
	const struct udp_rx_sys *sys;
	struct udp_rx_counters counters;
	struct mmsghdr header[UDP_RX_MSGS];
	struct iovec iov[UDP_RX_MSGS];
	struct {
		_Alignas(struct cmsghdr) uint8_t bytes[CONTROL_BYTES];
	} control[UDP_RX_MSGS];
};

const struct udp_rx_sys udp_rx_sys_kernel = {
	.recvmmsg = recvmmsg,
};

static void reset_headers(struct udp_rx *rx, struct udp_rx_batch *batch);
static bool is_fatal(int err);
static void keep_whole(struct udp_rx *rx, struct udp_rx_batch *batch, unsigned nr);
static bool take_message(struct udp_rx *rx, struct mmsghdr *header, struct udp_rx_msg *msg);

int udp_rx_new(struct udp_rx **out, const struct udp_rx_sys *sys)
{
	struct udp_rx *rx = calloc(1, sizeof(*rx));

	if (!rx)
		return -ENOMEM;
	rx->sys = sys ? sys : &udp_rx_sys_kernel;
	for (unsigned i = 0; i < UDP_RX_MSGS; i++) {
		struct msghdr *h = &rx->header[i].msg_hdr;

		h->msg_iov = &rx->iov[i];
		h->msg_iovlen = 1;
		h->msg_control = rx->control[i].bytes;
	}
	*out = rx;
	return 0;
}

void udp_rx_free(struct udp_rx *rx)
{
	free(rx);
}

int udp_receive(struct udp_rx *rx, int fd, struct udp_rx_batch *batch)
{
	atomic_store_explicit(&batch->refs, 1, memory_order_relaxed);
	batch->nr = 0;
	for (unsigned tries = 0; tries < TRIES_MAX && !batch->nr; tries++) {
		int nr;

		reset_headers(rx, batch);
		nr = rx->sys->recvmmsg(fd, rx->header, UDP_RX_MSGS, MSG_DONTWAIT | MSG_TRUNC, NULL);
		counter_add(&rx->counters.calls, 1);
		if (nr > 0) {
			keep_whole(rx, batch, (unsigned)nr);
			continue;
		}
		if (nr == 0 || errno == EAGAIN)
			break;
		if (is_fatal(errno))
			return -errno;
		if (errno != EINTR)
			counter_add(&rx->counters.errors, 1);
	}
	return (int)batch->nr;
}

const struct udp_rx_counters *udp_rx_counters(const struct udp_rx *rx)
{
	return &rx->counters;
}

/* Everything that the kernel overwrites, and everything that points into the batch. */
static void reset_headers(struct udp_rx *rx, struct udp_rx_batch *batch)
{
	for (unsigned i = 0; i < UDP_RX_MSGS; i++) {
		struct msghdr *h = &rx->header[i].msg_hdr;

		h->msg_name = &batch->msg[i].from.to;
		h->msg_namelen = sizeof(batch->msg[i].from.to);
		h->msg_controllen = CONTROL_BYTES;
		h->msg_flags = 0;
		rx->iov[i].iov_base = batch->data[i];
		rx->iov[i].iov_len = UDP_RX_MSG_BYTES;
	}
}

/* All others are errors of packets sent earlier, or will pass. */
static bool is_fatal(int err)
{
	return err == EBADF || err == ENOTSOCK || err == EFAULT || err == EINVAL || err == ENOSYS;
}

/* Closes the gaps that dropped messages leave in msg[]. */
static void keep_whole(struct udp_rx *rx, struct udp_rx_batch *batch, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		if (!take_message(rx, &rx->header[i], &batch->msg[i]))
			continue;
		if (batch->nr != i)
			batch->msg[batch->nr] = batch->msg[i];
		batch->nr++;
	}
}

/* An address that replies may leave from, with its link where it means nothing without. */
static void pin_v6(struct endpoint *e, const struct in6_pktinfo *info)
{
	if (IN6_IS_ADDR_MULTICAST(&info->ipi6_addr))
		return;
	e->from.v6 = info->ipi6_addr;
	e->arrival_ifindex = (int)info->ipi6_ifindex;
	if (IN6_IS_ADDR_LINKLOCAL(&info->ipi6_addr))
		e->from_ifindex = (int)info->ipi6_ifindex;
}

/* The fields of msg that come as control messages. Returns the GRO segment length, 0 when there is none. */
static uint32_t read_control(struct msghdr *h, struct udp_rx_msg *msg)
{
	uint32_t segment_len = 0;

	endpoint_clear_source(&msg->from);
	msg->ecn = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		const void *data = CMSG_DATA(c);

		if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
			int value;

			memcpy(&value, data, sizeof(value));
			segment_len = value > 0 ? (uint32_t)value : 0;
		} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo info;

			memcpy(&info, data, sizeof(info));
			/*
			 * ipi_addr is the destination in the header, which may be a broadcast address;
			 * ipi_spec_dst is the local address that the routing table answers it from.
			 */
			msg->from.from.v4 = info.ipi_spec_dst;
			msg->from.arrival_ifindex = info.ipi_ifindex;
		} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) {
			msg->ecn = *(const uint8_t *)data & 3;
		} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			struct in6_pktinfo info;

			memcpy(&info, data, sizeof(info));
			pin_v6(&msg->from, &info);
		} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS) {
			int value;

			memcpy(&value, data, sizeof(value));
			msg->ecn = (uint8_t)(value & 3);
		}
	}
	return segment_len;
}

static uint32_t datagrams_in(uint32_t len, uint32_t segment_len)
{
	return (len + segment_len - 1) / segment_len;
}

/* Fills msg from what the kernel left in header. false: nothing of it is worth keeping; counted. */
static bool take_message(struct udp_rx *rx, struct mmsghdr *header, struct udp_rx_msg *msg)
{
	struct msghdr *h = &header->msg_hdr;
	struct udp_rx_counters *counters = &rx->counters;
	uint32_t sent_len = header->msg_len; /* MSG_TRUNC: as it was on the wire, not as much as fitted */
	uint32_t room = (uint32_t)h->msg_iov->iov_len;
	uint32_t len = MIN(sent_len, room);
	uint32_t segment_len = read_control(h, msg);

	if (!sent_len) {
		counter_add(&counters->empty, 1);
		return false;
	}
	if (!segment_len || segment_len > sent_len)
		segment_len = sent_len;
	if (unlikely(h->msg_flags & MSG_CTRUNC)) {
		/* Without the control data it cannot be told where one datagram ends and the next begins. */
		counter_add(&counters->truncated, 1);
		return false;
	}
	if (unlikely(len < sent_len)) {
		len -= len % segment_len;
		counter_add(&counters->truncated, datagrams_in(sent_len - len, segment_len));
		if (!len)
			return false;
	}

	/*
	 * Bytes of the sender's address that mean nothing are zero, so that equal senders are equal byte by
	 * byte.
	 */
	if (msg->from.to.sa.sa_family == AF_INET6)
		msg->from.to.v6.sin6_flowinfo = 0;
	else
		memset((uint8_t *)&msg->from.to + sizeof(msg->from.to.v4), 0,
			sizeof(msg->from.to) - sizeof(msg->from.to.v4));
	msg->data = h->msg_iov->iov_base;
	msg->len = len;
	msg->segment_len = (uint16_t)MIN(segment_len, UINT16_MAX);
	const uint32_t nr = datagrams_in(len, segment_len);
	counter_add(&counters->messages, 1);
	counter_add(&counters->datagrams, nr);
	histogram_add(&counters->gro_segments, nr);
	counter_add(&counters->bytes, len);
	return true;
}
