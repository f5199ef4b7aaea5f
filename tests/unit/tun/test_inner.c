#include "tun/inner.h"

#include <criterion/criterion.h>
#include <errno.h>

#include "packets.h"

static const uint8_t payload[2000] = {1, 2, 3};

static uint32_t make(struct packet_spec *s, bool v6, uint32_t payload_len, uint8_t *out)
{
	uint64_t state = 7;

	packet_random(s, &state);
	s->v6 = v6;
	s->udp = true;
	s->options_len = 0;
	s->src[0] = s->dst[0] = 10;
	return packet_build(s, payload, payload_len, false, out);
}

Test(inner, trims_to_the_ip_total_length)
{
	struct packet_spec s;
	uint8_t packet[200] = {0};
	uint32_t len, ip_len;

	for (int v6 = 0; v6 < 2; v6++) {
		len = make(&s, v6, 20, packet);
		cr_assert_eq(inner_check(packet, len + 12, &ip_len), 0);
		cr_assert_eq(ip_len, len);
		cr_assert_eq(inner_check(packet, len, &ip_len), 0);
		ip_len = 7;
		cr_assert_eq(inner_check(packet, len - 1, &ip_len), -EINVAL, "longer than the buffer");
		cr_assert_eq(ip_len, 7, "written on failure");
	}
}

Test(inner, rejects_lengths_below_the_header)
{
	struct packet_spec s;
	uint8_t packet[200];
	uint32_t len = make(&s, false, 20, packet), ip_len;

	store_be16(packet + 2, 19);
	cr_assert_eq(inner_check(packet, len, &ip_len), -EINVAL);
	store_be16(packet + 2, 20);
	cr_assert_eq(inner_check(packet, len, &ip_len), 0);
	packet[0] = 0x46;
	cr_assert_eq(inner_check(packet, len, &ip_len), -EINVAL, "total length cuts the options");
	packet[0] = 0x44;
	cr_assert_eq(inner_check(packet, len, &ip_len), -EINVAL, "header shorter than 20");
	for (uint32_t i = 0; i < 20; i++)
		cr_assert_eq(inner_check(packet, i, &ip_len), -EINVAL);
	len = make(&s, true, 20, packet);
	for (uint32_t i = 0; i < 40; i++)
		cr_assert_eq(inner_check(packet, i, &ip_len), -EINVAL);
}

Test(inner, rejects_other_versions)
{
	struct packet_spec s;
	uint8_t packet[200];
	const uint32_t len = make(&s, false, 60, packet);
	uint32_t ip_len;

	for (unsigned version = 0; version < 16; version++) {
		packet[0] = (uint8_t)(version << 4 | 5);
		if (version != 4 && version != 6)
			cr_assert_eq(inner_check(packet, len, &ip_len), -EINVAL);
	}
}

Test(inner, finds_addresses_and_traffic_class)
{
	struct packet_spec s;
	uint8_t packet[200];

	for (int v6 = 0; v6 < 2; v6++) {
		make(&s, v6, 20, packet);
		cr_assert_eq(inner_version(packet), v6 ? 6 : 4);
		cr_assert_arr_eq(inner_src(packet), s.src, v6 ? 16 : 4);
		cr_assert_arr_eq(inner_dst(packet), s.dst, v6 ? 16 : 4);
		cr_assert_eq(inner_tos(packet), s.tos);
		cr_assert_eq(inner_ecn(packet), s.tos & 3);
	}
}

Test(inner, setting_ecn_changes_only_ecn_and_keeps_the_header_checksum_right)
{
	uint64_t state = rnd_seed("inner ecn");

	for (unsigned round = 0; round < 20000; round++) {
		struct packet_spec s;
		uint8_t packet[200], want[200];
		const uint8_t ecn = rnd_below(&state, 4);
		uint32_t len;

		packet_random(&s, &state);
		len = packet_build(&s, payload, 10, false, packet);
		s.tos = (uint8_t)((s.tos & ~3) | ecn);
		packet_build(&s, payload, 10, false, want);
		inner_set_ecn(packet, ecn);
		cr_assert_arr_eq(packet, want, len);
	}
}

Test(inner, merges_ecn_as_rfc_6040_figure_4)
{
	/* [inner][outer], in numbers: Not-ECT 0, ECT(1) 1, ECT(0) 2, CE 3; -1: drop */
	static const int figure4[4][4] = {{0, 0, 0, -1}, {1, 1, 1, 3}, {2, 1, 2, 3}, {3, 3, 3, 3}};

	for (int v6 = 0; v6 < 2; v6++)
		for (uint8_t in = 0; in < 4; in++)
			for (uint8_t out = 0; out < 4; out++) {
				struct packet_spec s;
				uint8_t packet[200];
				int err;

				make(&s, v6, 20, packet);
				inner_set_ecn(packet, in);
				err = inner_ecn_decapsulate(packet, out);
				cr_assert_eq(err, figure4[in][out] < 0 ? -EBADMSG : 0, "inner %d outer %d",
					in, out);
				cr_assert_eq(inner_ecn(packet), figure4[in][out] < 0 ? in : figure4[in][out]);
				cr_assert_eq(inner_ecn_encapsulate(packet), inner_ecn(packet));
			}
}

Test(inner, finds_the_transport_behind_extension_headers)
{
	struct inner_transport t;
	struct packet_spec s;
	uint8_t packet[200];
	uint32_t len;

	make(&s, true, 20, packet);
	s.extension_len = 16;
	len = packet_build(&s, payload, 20, false, packet);
	cr_assert_eq(inner_transport(packet, len, &t), 0);
	cr_assert_eq(t.proto, 17);
	cr_assert_eq(t.offset, 56);
	cr_assert_not(t.fragment);
	packet[41] = 200;
	cr_assert_eq(inner_transport(packet, len, &t), -EINVAL, "extension header longer than the packet");

	packet[6] = 44;
	packet[41] = 0;
	store_be16(packet + 42, 0x0001);
	cr_assert_eq(inner_transport(packet, len, &t), 0);
	cr_assert(t.fragment);
	cr_assert_not(t.later_fragment);
	cr_assert_eq(t.offset, 48);
	store_be16(packet + 42, 0x0008);
	cr_assert_eq(inner_transport(packet, len, &t), 0);
	cr_assert(t.later_fragment);
}

Test(inner, unreachable_quotes_the_packet_to_its_sender)
{
	struct packet_spec s;
	uint8_t packet[2000], out[1280];
	uint32_t len;
	unsigned n;

	len = make(&s, false, 100, packet);
	n = inner_unreachable(packet, len, out, sizeof(out));
	cr_assert_eq(n, 28 + len);
	cr_assert_eq(load_be16(out + 2), n);
	cr_assert_eq(out[9], 1);
	cr_assert_arr_eq(out + 12, s.dst, 4);
	cr_assert_arr_eq(out + 16, s.src, 4);
	cr_assert_eq(naive_sum(0, out, 20), 0xffff);
	cr_assert_eq(out[20], 3);
	cr_assert_eq(out[21], 1);
	cr_assert_eq(naive_sum(0, out + 20, n - 20), 0xffff);
	cr_assert_arr_eq(out + 28, packet, len);

	len = make(&s, true, 100, packet);
	n = inner_unreachable(packet, len, out, sizeof(out));
	cr_assert_eq(n, 48 + len);
	cr_assert_eq(load_be16(out + 4), n - 40);
	cr_assert_eq(out[6], 58);
	cr_assert_arr_eq(out + 8, s.dst, 16);
	cr_assert_arr_eq(out + 24, s.src, 16);
	cr_assert_eq(out[40], 1);
	cr_assert_eq(out[41], 3);
	cr_assert_eq(naive_sum(naive_sum(58 + n - 40, out + 8, 32), out + 40, n - 40), 0xffff);
	cr_assert_arr_eq(out + 48, packet, len);
}

Test(inner, unreachable_is_bounded)
{
	struct packet_spec s;
	uint8_t packet[2000], out[1280];
	uint32_t len;

	len = make(&s, false, 1400, packet);
	cr_assert_eq(inner_unreachable(packet, len, out, sizeof(out)), 576);
	cr_assert_eq(inner_unreachable(packet, len, out, 575), 0);
	len = make(&s, true, 1400, packet);
	cr_assert_eq(inner_unreachable(packet, len, out, sizeof(out)), 1280);
	cr_assert_eq(inner_unreachable(packet, len, out, 1279), 0);
	cr_assert_eq(inner_unreachable(packet, len - 1, out, sizeof(out)), 0, "truncated packet");
}

Test(inner, unreachable_never_answers_icmp_errors_fragments_or_groups)
{
	struct packet_spec s;
	uint8_t packet[200], out[1280];
	uint32_t len;

#define ANSWERS() inner_unreachable(packet, len, out, sizeof(out))
	len = make(&s, false, 40, packet);
	packet[9] = 1;
	for (unsigned type = 0; type < 256; type++) {
		packet[20] = (uint8_t)type;
		cr_assert_eq(!ANSWERS(), type == 3 || type == 4 || type == 5 || type == 11 || type == 12,
			"ICMP type %u", type);
	}
	packet[9] = 17;
	cr_assert(ANSWERS());
	store_be16(packet + 6, 0x2000);
	cr_assert(ANSWERS(), "first fragment");
	store_be16(packet + 6, 0x2001);
	cr_assert_not(ANSWERS(), "later fragment");
	store_be16(packet + 6, 0);
	static const uint8_t groups[] = {224, 239, 240, 255};
	for (unsigned i = 0; i < ARRAY_LEN(groups); i++) {
		packet[16] = groups[i];
		cr_assert_not(ANSWERS());
		packet[16] = 10;
		packet[12] = groups[i];
		cr_assert_not(ANSWERS());
		packet[12] = 10;
	}
	packet[12] = 0;
	cr_assert_not(ANSWERS(), "from this network");

	len = make(&s, true, 40, packet);
	packet[6] = 58;
	for (unsigned type = 0; type < 256; type++) {
		packet[40] = (uint8_t)type;
		cr_assert_eq(!ANSWERS(), type < 128 || type == 137, "ICMPv6 type %u", type);
	}
	packet[24] = 0xff;
	cr_assert_not(ANSWERS(), "to a group");
	packet[24] = 0x20;
	cr_assert(ANSWERS());
	packet[6] = 44;
	store_be16(packet + 42, 8);
	cr_assert_not(ANSWERS(), "later fragment");
	store_be16(packet + 42, 1);
	packet[40] = 17;
	cr_assert(ANSWERS(), "first fragment");
	packet[6] = 17;
	memset(packet + 8, 0, 16);
	cr_assert_not(ANSWERS(), "from nobody");
#undef ANSWERS
}
