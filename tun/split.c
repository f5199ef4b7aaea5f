#include "tun/split.h"

#include <errno.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>

#include "tun/checksum.h"
#include "tun/inner.h"
#include "tun/transport.h"
#include "tun/tun.h"

#define PAD_TO 16

static int begin_plain(struct split *s);
static int begin_gso(struct split *s, uint8_t gso_type);
static uint64_t pseudo_sum(const struct split *s);
static void prepare_ip(struct split *s);
static void prepare_tcp(struct split *s);
static void prepare_udp(struct split *s);
static void restore(struct split *s);
static void finish_plain(struct split *s);
static void write_header(const struct split *s, uint8_t *data, uint32_t payload_len);
static void pad(struct split *s, struct split_segment *seg);

int split_begin(struct split *s, uint8_t *packet, const struct train_packet *p, uint32_t mtu)
{
	uint32_t ip_len;
	int err;

	err = inner_check(packet, p->len, &ip_len);
	if (err)
		return err;
	s->packet = packet;
	s->len = ip_len;
	s->mtu = mtu;
	s->i = 0;
	s->saved_at = s->packet;
	s->saved_len = 0;
	s->flags = p->flags;
	s->gso_size = p->gso_size;
	s->csum_start = p->csum_start;
	s->csum_offset = p->csum_offset;
	s->ip_version = (uint8_t)inner_version(s->packet);
	if ((s->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) && s->csum_start + s->csum_offset + 2u > s->len)
		return -EINVAL;
	return p->gso_type == VIRTIO_NET_HDR_GSO_NONE ? begin_plain(s) : begin_gso(s, p->gso_type);
}

bool split_next(struct split *s, struct split_segment *seg)
{
	restore(s);
	if (s->i == s->nr)
		return false;
	if (!s->header_len) {
		finish_plain(s);
		seg->data = s->packet;
		seg->len = s->len;
	} else {
		/* i * gso_size is below len, which is below 2^17 */
		const uint32_t at = s->i * s->gso_size;
		const uint32_t payload_len = MIN(s->gso_size, s->len - s->header_len - at);

		seg->data = s->packet + at;
		seg->len = s->header_len + payload_len;
		write_header(s, seg->data, payload_len);
	}
	pad(s, seg);
	s->i++;
	return true;
}

static int begin_plain(struct split *s)
{
	/* Completing a checksum there would overwrite the IP header. */
	if ((s->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) &&
		s->csum_start < (s->ip_version == 4 ? INNER_IPV4_HEADER : INNER_IPV6_HEADER))
		return -EINVAL;
	s->header_len = 0;
	s->nr = 1;
	s->max_segment = s->len;
	return 0;
}

static int begin_gso(struct split *s, uint8_t gso_type)
{
	const uint8_t proto =
		(gso_type & ~VIRTIO_NET_HDR_GSO_ECN) == TUN_GSO_UDP_L4 ? IPPROTO_UDP : IPPROTO_TCP;
	struct inner_transport t;
	uint32_t payload_len;

	switch (gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
		if (s->ip_version != 4)
			return -EINVAL;
		break;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		if (s->ip_version != 6)
			return -EINVAL;
		break;
	case TUN_GSO_UDP_L4:
		break;
	default:
		return -EINVAL;
	}
	if (!s->gso_size || inner_transport(s->packet, s->len, &t) || t.fragment || t.proto != proto ||
		s->len - t.offset < (proto == IPPROTO_TCP ? TCP_HEADER : UDP_HEADER))
		return -EINVAL;
	s->header_len = t.offset + UDP_HEADER;
	if (proto == IPPROTO_TCP) {
		if (tcp_header_len(s->packet + t.offset) < TCP_HEADER)
			return -EINVAL;
		s->header_len = t.offset + tcp_header_len(s->packet + t.offset);
	}
	if (s->header_len > s->len || s->header_len > SPLIT_HEADERS_MAX)
		return -EINVAL;
	if ((s->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) &&
		(s->csum_start != t.offset ||
			s->csum_offset != (proto == IPPROTO_TCP ? TCP_CHECK : UDP_CHECK)))
		return -EINVAL;
	payload_len = s->len - s->header_len;
	s->nr = payload_len ? (payload_len + s->gso_size - 1) / s->gso_size : 1;
	s->max_segment = s->header_len + MIN(payload_len, s->gso_size);
	s->l4_proto = proto;
	s->l4_offset = (uint8_t)t.offset;
	memcpy(s->template, s->packet, s->header_len);
	s->l4_sum = pseudo_sum(s);
	prepare_ip(s);
	if (proto == IPPROTO_TCP)
		prepare_tcp(s);
	else
		prepare_udp(s);
	s->l4_sum = checksum_add_words(s->l4_sum, s->template + s->l4_offset, s->header_len - s->l4_offset);
	return 0;
}

/*
 * The pseudo-header without its length. The kernel has left its sum, length included, in the checksum field;
 * that is right also where the destination address is not the last one (IPv6 routing headers). Subtracting is
 * adding the complement.
 */
static uint64_t pseudo_sum(const struct split *s)
{
	const uint8_t *check =
		s->template + s->l4_offset + (s->l4_proto == IPPROTO_TCP ? TCP_CHECK : UDP_CHECK);
	const uint16_t l4_len = (uint16_t)(s->len - s->l4_offset);

	if (!(s->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return inner_pseudo_sum(s->template, s->l4_proto);
	return checksum_add_be16(checksum_add_be16(0, load_be16(check)), (uint16_t)~l4_len);
}

static void prepare_ip(struct split *s)
{
	uint8_t *ip = s->template;

	if (s->ip_version == 6) {
		store_be16(ip + IP6_PAYLOAD_LEN, 0);
		return;
	}
	s->ip_id = load_be16(ip + IP4_ID);
	store_be16(ip + IP4_TOTAL_LEN, 0);
	store_be16(ip + IP4_ID, 0);
	store_be16(ip + IP4_CHECK, 0);
	s->ip_sum = checksum_add_words(0, ip, s->l4_offset);
}

static void prepare_tcp(struct split *s)
{
	uint8_t *tcp = s->template + s->l4_offset;

	s->tcp_seq = load_be32(tcp + TCP_SEQ);
	s->tcp_flags = tcp[TCP_FLAGS];
	store_be32(tcp + TCP_SEQ, 0);
	tcp[TCP_FLAGS] = 0;
	store_be16(tcp + TCP_CHECK, 0);
}

static void prepare_udp(struct split *s)
{
	uint8_t *udp = s->template + s->l4_offset;

	store_be16(udp + UDP_LEN, 0);
	store_be16(udp + UDP_CHECK, 0);
}

static void restore(struct split *s)
{
	memcpy(s->saved_at, s->saved, s->saved_len);
	s->saved_len = 0;
}

/* The field holds the pseudo-header's sum already and is summed with the rest (virtio 1.2, 5.1.6.2). */
static void finish_plain(struct split *s)
{
	uint8_t *start = s->packet + s->csum_start;

	if (s->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		checksum_store_nonzero(
			start + s->csum_offset, checksum_add(0, start, s->len - s->csum_start));
}

static void write_header(const struct split *s, uint8_t *data, uint32_t payload_len)
{
	const bool first = s->i == 0, last = s->i + 1 == s->nr;
	const uint16_t l4_len = (uint16_t)(s->header_len - s->l4_offset + payload_len);
	uint8_t *l4 = data + s->l4_offset;
	uint64_t sum = checksum_add_be16(s->l4_sum, l4_len);

	memcpy(data, s->template, s->header_len);
	if (s->ip_version == 4) {
		const uint16_t total = (uint16_t)(s->header_len + payload_len);
		const uint16_t id = (uint16_t)(s->ip_id + s->i);

		store_be16(data + IP4_TOTAL_LEN, total);
		store_be16(data + IP4_ID, id);
		checksum_store(data + IP4_CHECK, checksum_add_be16(checksum_add_be16(s->ip_sum, total), id));
	} else {
		store_be16(
			data + IP6_PAYLOAD_LEN, (uint16_t)(s->header_len - INNER_IPV6_HEADER + payload_len));
	}
	if (s->l4_proto == IPPROTO_TCP) {
		const uint32_t seq = s->tcp_seq + s->i * s->gso_size;
		uint8_t flags = s->tcp_flags;

		if (!first)
			flags &= (uint8_t)~TCP_CWR;
		if (!last)
			flags &= (uint8_t) ~(TCP_FIN | TCP_PSH);
		store_be32(l4 + TCP_SEQ, seq);
		l4[TCP_FLAGS] = flags;
		sum = checksum_add_be16(checksum_add_be32(sum, seq), flags);
		checksum_store(
			l4 + TCP_CHECK, checksum_add(sum, l4 + (s->header_len - s->l4_offset), payload_len));
	} else {
		store_be16(l4 + UDP_LEN, l4_len);
		sum = checksum_add_be16(sum, l4_len);
		checksum_store_nonzero(l4 + UDP_CHECK, checksum_add(sum, l4 + UDP_HEADER, payload_len));
	}
}

static void pad(struct split *s, struct split_segment *seg)
{
	seg->padded_len = MIN(ALIGN_UP(seg->len, PAD_TO), MAX(s->mtu, seg->len));
	s->saved_at = seg->data + seg->len;
	s->saved_len = seg->padded_len - seg->len;
	memcpy(s->saved, s->saved_at, s->saved_len);
	memset(s->saved_at, 0, s->saved_len);
}
