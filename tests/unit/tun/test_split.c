#include "tun/split.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/virtio_net.h>

#include "packets.h"
#include "tun/tun.h"

#define GUARD 0xa5

static uint8_t payload[PACKET_MAX];
static uint8_t packet[PACKET_MAX + TRAIN_GAP + 16];

static void fill_payload(uint64_t *state)
{
	for (size_t i = 0; i < sizeof(payload); i += 4) {
		const uint32_t v = rnd(state);

		memcpy(payload + i, &v, MIN(sizeof(v), sizeof(payload) - i));
	}
}

static struct train_packet super(const struct packet_spec *s, uint32_t payload_len, uint16_t gso_size)
{
	memset(packet, GUARD, sizeof(packet));
	return (struct train_packet){
		.len = packet_build(s, payload, payload_len, true, packet),
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = s->udp  ? TUN_GSO_UDP_L4
			    : s->v6 ? VIRTIO_NET_HDR_GSO_TCPV6
				    : VIRTIO_NET_HDR_GSO_TCPV4,
		.gso_size = gso_size,
		.csum_start = (uint16_t)packet_l4_offset(s),
		.csum_offset = s->udp ? 6 : 16,
	};
}

/* Cuts packet[] and compares each segment, padding included, with the naive one. */
static void check_all(
	const struct packet_spec *s, const struct train_packet *p, uint32_t payload_len, uint32_t mtu)
{
	static uint8_t want[PACKET_MAX];
	const uint32_t nr = payload_len ? (payload_len + p->gso_size - 1) / p->gso_size : 1;
	struct split_segment seg;
	struct split split;
	uint32_t i = 0;

	cr_assert_eq(split_begin(&split, packet, p, mtu), 0);
	cr_assert_eq(split.nr, nr);
	cr_assert_eq(split.max_segment, packet_header_len(s) + MIN(payload_len, p->gso_size));
	while (split_next(&split, &seg)) {
		const uint32_t len = packet_segment(s, payload, payload_len, p->gso_size, i, want);
		const uint32_t room = mtu > len ? mtu : len, up = (len + 15) / 16 * 16;

		cr_assert_eq(seg.len, len, "segment %u of %u", i, nr);
		cr_assert(!memcmp(seg.data, want, len), "segment %u of %u", i, nr);
		cr_assert_eq(seg.padded_len, up < room ? up : room);
		for (uint32_t at = seg.len; at < seg.padded_len; at++)
			cr_assert_eq(seg.data[at], 0);
		i++;
	}
	cr_assert_eq(i, nr);
	cr_assert_not(split_next(&split, &seg), "nothing after the end");
	for (uint32_t at = p->len; at < sizeof(packet); at++)
		cr_assert_eq(packet[at], GUARD, "byte %u past the end was not put back", at - p->len);
}

Test(split, cuts_random_super_packets_as_the_naive_way_does)
{
	uint64_t state = rnd_seed("split");

	fill_payload(&state);
	for (unsigned round = 0; round < 3000; round++) {
		struct packet_spec s;
		struct train_packet p;
		uint32_t payload_len, max, mtu = 68 + rnd_below(&state, 1500);
		uint16_t gso_size;

		packet_random(&s, &state);
		if (!s.udp)
			s.flags = (uint8_t)rnd(&state);
		if (rnd_below(&state, 4) == 0) {
			s.extension_len = s.v6 ? 8 * rnd_below(&state, 5) : 4 * rnd_below(&state, 11);
			for (unsigned i = 0; i < s.extension_len; i++)
				s.extension[i] = (uint8_t)rnd(&state);
		}
		max = 65535 - packet_header_len(&s);
		payload_len = rnd_below(&state, 3) ? rnd_below(&state, 4000) : rnd_below(&state, max + 1);
		gso_size = (uint16_t)(1 + rnd_below(&state, rnd_below(&state, 3) ? 1500 : 40));
		if (payload_len > 300u * gso_size)
			payload_len = 300u * gso_size;
		p = super(&s, payload_len, gso_size);
		if (rnd_below(&state, 2) && !s.udp)
			p.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
		if (rnd_below(&state, 4) == 0)
			p.flags = 0; /* then it has to find the pseudo-header's sum by itself */
		check_all(&s, &p, payload_len, mtu);
	}
}

Test(split, cuts_the_longest_packet)
{
	uint64_t state = rnd_seed("split longest");
	struct packet_spec s;
	struct train_packet p;

	fill_payload(&state);
	for (unsigned round = 0; round < 20; round++) {
		packet_random(&s, &state);
		p = super(&s, 65535 - packet_header_len(&s), 1380);
		check_all(&s, &p, 65535 - packet_header_len(&s), 1420);
	}
}

Test(split, keeps_fin_and_psh_for_the_last_and_cwr_for_the_first)
{
	uint64_t state = 3;
	struct split_segment seg;
	struct train_packet p;
	struct packet_spec s;
	struct split split;
	uint8_t flags[3];

	packet_random(&s, &state);
	s.udp = s.v6 = false;
	s.options_len = 0;
	s.flags = 0xff;
	p = super(&s, 3000, 1000);
	p.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
	cr_assert_eq(split_begin(&split, packet, &p, 1420), 0);
	for (unsigned i = 0; split_next(&split, &seg); i++)
		flags[i] = seg.data[20 + 13];
	cr_assert_eq(flags[0], 0xff & ~0x09);
	cr_assert_eq(flags[1], 0xff & ~0x89);
	cr_assert_eq(flags[2], 0xff & ~0x80);
}

Test(split, udp_checksum_of_zero_is_sent_as_all_ones)
{
	struct packet_spec s = {.udp = true, .ttl = 1, .src = {10}, .dst = {10}, .sport = 1, .dport = 2};
	struct split_segment seg;
	struct train_packet p;
	struct split split;
	uint8_t probe[64];

	/* Two payload bytes that make the checksum come out as zero: the sum so far, complemented. */
	memset(payload, 0, 4);
	packet_build(&s, payload, 2, false, probe);
	memcpy(payload, probe + 26, 2);
	memcpy(payload + 2, probe + 26, 2);
	p = super(&s, 4, 2);
	cr_assert_eq(split_begin(&split, packet, &p, 1420), 0);
	while (split_next(&split, &seg))
		cr_assert_eq(load_be16(seg.data + 26), 0xffff);
}

Test(split, completes_the_checksum_of_plain_packets)
{
	uint64_t state = rnd_seed("split plain");

	fill_payload(&state);
	for (unsigned round = 0; round < 3000; round++) {
		static uint8_t want[PACKET_MAX];
		struct split_segment seg;
		struct train_packet p;
		struct packet_spec s;
		struct split split;
		uint32_t len;

		packet_random(&s, &state);
		p = super(&s, rnd_below(&state, 1600), 0);
		p.gso_type = VIRTIO_NET_HDR_GSO_NONE;
		len = packet_build(&s, payload, p.len - packet_header_len(&s), false, want);
		if (rnd_below(&state, 2)) {
			memcpy(packet, want, len);
			p.flags = 0;
			p.csum_start = (uint16_t)rnd(&state);
		}
		p.len += rnd_below(&state, 12); /* trailing bytes that are not IP's are left out */
		cr_assert_eq(split_begin(&split, packet, &p, 1420), 0);
		cr_assert_eq(split.nr, 1);
		cr_assert_eq(split.header_len, 0);
		cr_assert_eq(split.max_segment, len);
		cr_assert(split_next(&split, &seg));
		cr_assert_eq(seg.len, len);
		/* all ones and zero are the same number; the kernel, too, writes the former even for TCP */
		if (p.flags && !load_be16(want + p.csum_start + p.csum_offset))
			store_be16(want + p.csum_start + p.csum_offset, 0xffff);
		cr_assert(!memcmp(seg.data, want, len));
		for (uint32_t at = seg.len; at < seg.padded_len; at++)
			cr_assert_eq(seg.data[at], 0);
		cr_assert_not(split_next(&split, &seg));
	}
}

Test(split, padding_never_passes_the_mtu)
{
	struct packet_spec s = {.udp = true, .ttl = 1};
	struct split_segment seg;
	struct train_packet p;
	struct split split;

	p = super(&s, 1392, 0);
	p.gso_type = 0;
	cr_assert_eq(split_begin(&split, packet, &p, 1420), 0);
	cr_assert(split_next(&split, &seg));
	cr_assert_eq(seg.len, 1420);
	cr_assert_eq(seg.padded_len, 1420);
	p = super(&s, 1391, 0);
	p.gso_type = 0;
	cr_assert_eq(split_begin(&split, packet, &p, 1420), 0);
	cr_assert(split_next(&split, &seg));
	cr_assert_eq(seg.padded_len, 1420);
	cr_assert_eq(split_begin(&split, packet, &p, 1000), 0);
	cr_assert(split_next(&split, &seg));
	cr_assert_eq(seg.padded_len, 1419);
}

Test(split, refuses_malformed_packets)
{
	struct packet_spec tcp = {.ttl = 1, .flags = 0x10}, udp = {.udp = true, .ttl = 1};
	const struct train_packet good = super(&tcp, 3000, 1000);
	struct train_packet p = good;
	struct split split;

#define REFUSES(change)                                                                                      \
	do {                                                                                                 \
		p = super(&tcp, 3000, 1000);                                                                 \
		cr_assert_eq(split_begin(&split, packet, &p, 1420), 0);                                      \
		change;                                                                                      \
		cr_assert_eq(split_begin(&split, packet, &p, 1420), -EINVAL, #change);                       \
	} while (0)
	REFUSES(p.gso_size = 0);
	REFUSES(p.gso_type = VIRTIO_NET_HDR_GSO_TCPV6);
	REFUSES(p.gso_type = VIRTIO_NET_HDR_GSO_UDP);
	REFUSES(p.gso_type = TUN_GSO_UDP_L4);
	REFUSES(p.gso_type = 0x21);
	REFUSES(p.csum_start = 24);
	REFUSES(p.csum_offset = 6);
	REFUSES(p.csum_start = 65535);
	REFUSES(p.csum_offset = 65535);
	REFUSES(p.len = 3000);
	REFUSES(p.len = 0);
	REFUSES(packet[9] = 1);
	REFUSES(packet[0] = 0x4f; packet[20 + 40 + 12] = 0x10);
	REFUSES(packet[0] = 0x55);
	REFUSES(packet[20 + 12] = 0x40);
	REFUSES(store_be16(packet + 6, 0x2000));
	REFUSES(store_be16(packet + 6, 0x0001));
	REFUSES(store_be16(packet + 2, 39));
	REFUSES(store_be16(packet + 2, 50); packet[20 + 12] = 0xf0);
	REFUSES(p.gso_type = 0; p.csum_start = 10);
	REFUSES(p.gso_type = 0; p.csum_start = 3039);
#undef REFUSES
	p = super(&udp, 3000, 1000);
	store_be16(packet + 2, 27);
	cr_assert_eq(split_begin(&split, packet, &p, 1420), -EINVAL, "no room for the UDP header");
}

Test(split, refuses_headers_longer_than_its_template)
{
	struct packet_spec s = {.v6 = true, .ttl = 1, .flags = 0x10, .options_len = 40, .extension_len = 40};
	struct train_packet p = super(&s, 3000, 1000);
	struct split split;

	/* 40 + 40 + 60 fits; make the first extension header reach 88 bytes into the payload */
	cr_assert_eq(split_begin(&split, packet, &p, 1420), 0);
	packet[41] = 15;
	packet[40 + 128 + 12] = 0xf0;
	p.csum_start = 168;
	cr_assert_eq(split_begin(&split, packet, &p, 1420), -EINVAL);
}
