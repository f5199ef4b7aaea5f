#include "tun/coalesce.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <stdlib.h>

#include "packets.h"
#include "tun/tun_mem.h"

#define PACKETS_MAX 400
#define OUT_MAX 4096

/* What came out: the frames, and the packets they stand for, cut up the naive way. */
struct sink {
	struct {
		uint32_t len, packets;
		uint8_t gso_type;
		uint16_t gso_size;
	} frame[OUT_MAX];
	unsigned nr_frames;
	struct {
		uint8_t *data;
		uint32_t len;
	} packet[OUT_MAX];
	unsigned nr;
};

static struct sink sink;
static uint8_t payload[PACKET_MAX];
static uint8_t input[PACKETS_MAX][2048];

static void keep(const uint8_t *data, uint32_t len)
{
	cr_assert(sink.nr < OUT_MAX);
	sink.packet[sink.nr].data = malloc(len);
	memcpy(sink.packet[sink.nr].data, data, len);
	sink.packet[sink.nr++].len = len;
}

static void keep_run(const struct tun_frame *frame, const uint8_t *whole, unsigned packets)
{
	static uint8_t segment[PACKET_MAX];
	struct packet_spec s;
	const uint32_t header_len = packet_parse(&s, whole);
	const uint32_t payload_len = frame->len - header_len, l4 = packet_l4_offset(&s);
	static uint8_t again[PACKET_MAX];

	cr_assert_eq(frame->flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	cr_assert_eq(frame->gso_type, s.udp  ? TUN_GSO_UDP_L4
				      : s.v6 ? VIRTIO_NET_HDR_GSO_TCPV6
					     : VIRTIO_NET_HDR_GSO_TCPV4);
	cr_assert_eq(frame->hdr_len, header_len);
	cr_assert_eq(frame->csum_start, l4);
	cr_assert_eq(frame->csum_offset, s.udp ? 6 : 16);
	cr_assert_eq(packets, (payload_len + frame->gso_size - 1) / frame->gso_size);
	/* lengths, IP checksum and pseudo-header sum of the super-packet */
	cr_assert_eq(packet_build(&s, whole + header_len, payload_len, true, again), frame->len);
	cr_assert(!memcmp(again, whole, frame->len));
	for (unsigned i = 0; i < packets; i++)
		keep(segment,
			packet_segment(&s, whole + header_len, payload_len, frame->gso_size, i, segment));
}

static void collect(void *arg, struct tun_frame *frame, unsigned packets)
{
	static uint8_t whole[PACKET_MAX];
	uint32_t at = 0;

	cr_assert(frame->nr_iov >= 2 && frame->nr_iov <= TUN_FRAME_IOV_MAX);
	cr_assert(frame->len <= 65535);
	for (uint32_t i = 1; i < frame->nr_iov; i++) {
		memcpy(whole + at, frame->iov[i].iov_base, frame->iov[i].iov_len);
		at += (uint32_t)frame->iov[i].iov_len;
	}
	cr_assert_eq(at, frame->len);
	cr_assert(sink.nr_frames < OUT_MAX);
	sink.frame[sink.nr_frames].len = frame->len;
	sink.frame[sink.nr_frames].packets = packets;
	sink.frame[sink.nr_frames].gso_type = frame->gso_type;
	sink.frame[sink.nr_frames++].gso_size = frame->gso_size;
	if (frame->gso_type == VIRTIO_NET_HDR_GSO_NONE) {
		cr_assert_eq(packets, 1);
		cr_assert_eq(frame->flags, 0);
		keep(whole, at);
	} else {
		cr_assert(packets > 1 && packets <= 64);
		keep_run(frame, whole, packets);
	}
}

static void reset(struct coalesce *c, unsigned offloads)
{
	for (unsigned i = 0; i < sink.nr; i++)
		free(sink.packet[i].data);
	sink.nr = sink.nr_frames = 0;
	cr_assert_eq(coalesce_init(c, collect, NULL), 0);
	c->offloads = offloads;
}

static void add(struct coalesce *c, unsigned slot, const struct packet_spec *s, uint32_t payload_len)
{
	const uint32_t len = packet_build(s, payload, payload_len, false, input[slot]);

	coalesce_add(c, input[slot], len);
}

/* A steady TCP (or UDP) flow; next() moves it one packet on. */
static struct packet_spec flow(bool v6, bool udp)
{
	return (struct packet_spec){
		.v6 = v6,
		.udp = udp,
		.src = {10, 1},
		.dst = {10, 2},
		.ttl = 64,
		.df = true,
		.id = 65530,
		.sport = 443,
		.dport = 5000,
		.seq = 0xfffff000,
		.ack = 77,
		.window = 500,
		.flags = 0x10,
		.options_len = udp ? 0 : 12,
		.options = {1, 1, 8, 10},
	};
}

static void next(struct packet_spec *s, uint32_t payload_len)
{
	s->seq += payload_len;
	s->id++;
}

/* How many frames do two packets make, the second as changed? */
#define FRAMES_OF_TWO(v6, udp, second_len, change)                                                           \
	({                                                                                                   \
		struct coalesce c_;                                                                          \
		struct packet_spec s = flow(v6, udp);                                                        \
		reset(&c_, TUN_CAN_TSO | TUN_CAN_USO);                                                       \
		add(&c_, 0, &s, 1000);                                                                       \
		next(&s, 1000);                                                                              \
		change;                                                                                      \
		add(&c_, 1, &s, second_len);                                                                 \
		coalesce_flush(&c_);                                                                         \
		coalesce_done(&c_);                                                                          \
		cr_assert_eq(sink.nr, 2);                                                                    \
		sink.nr_frames;                                                                              \
	})

Test(coalesce, joins_a_steady_run_into_one_frame)
{
	for (int kind = 0; kind < 4; kind++) {
		struct packet_spec s = flow(kind & 1, kind & 2);
		struct coalesce c;

		reset(&c, TUN_CAN_TSO | TUN_CAN_USO);
		for (unsigned i = 0; i < 45; i++) {
			add(&c, i, &s, 1368);
			next(&s, 1368);
		}
		cr_assert_eq(sink.nr_frames, 0);
		coalesce_flush(&c);
		cr_assert_eq(sink.nr_frames, 1);
		cr_assert_eq(sink.frame[0].packets, 45);
		cr_assert_eq(sink.frame[0].gso_size, 1368);
		coalesce_done(&c);
	}
}

Test(coalesce, never_passes_64_segments_or_65535_bytes)
{
	for (int kind = 0; kind < 4; kind++) {
		struct packet_spec s = flow(kind & 1, kind & 2);
		struct coalesce c;

		reset(&c, TUN_CAN_TSO | TUN_CAN_USO);
		for (unsigned i = 0; i < 65; i++) {
			add(&c, i, &s, 100);
			next(&s, 100);
		}
		coalesce_flush(&c);
		cr_assert_eq(sink.nr_frames, 2);
		cr_assert_eq(sink.frame[0].packets, 64);
		coalesce_done(&c);

		s = flow(kind & 1, kind & 2);
		reset(&c, TUN_CAN_TSO | TUN_CAN_USO);
		for (unsigned i = 0; i < 60; i++) {
			add(&c, i, &s, 1368);
			next(&s, 1368);
		}
		coalesce_flush(&c);
		cr_assert_eq(sink.nr_frames, 2);
		cr_assert_eq(sink.frame[0].packets, 47);
		coalesce_done(&c);
	}
}

Test(coalesce, fills_65535_bytes_but_not_one_more)
{
	for (uint32_t more = 0; more < 2; more++) {
		struct packet_spec s = flow(false, true);
		struct coalesce c;

		reset(&c, TUN_CAN_USO);
		for (unsigned i = 0; i < 63; i++)
			add(&c, i, &s, 1024);
		add(&c, 63, &s, 65535 - 28 - 63 * 1024 + more);
		coalesce_flush(&c);
		cr_assert_eq(sink.nr_frames, 1 + more);
		cr_assert_eq(sink.frame[0].len, more ? 28 + 63 * 1024 : 65535);
		coalesce_done(&c);
	}
}

Test(coalesce, urgent_pointers_must_be_equal)
{
	for (uint8_t urgent = 0; urgent < 2; urgent++) {
		struct packet_spec s = flow(false, false);
		struct coalesce c;
		uint32_t len;

		reset(&c, TUN_CAN_TSO);
		add(&c, 0, &s, 1000);
		next(&s, 1000);
		len = packet_build(&s, payload, 1000, false, input[1]);
		input[1][20 + 19] = urgent;
		coalesce_add(&c, input[1], len);
		coalesce_flush(&c);
		cr_assert_eq(sink.nr_frames, 1u + urgent);
		coalesce_done(&c);
	}
}

Test(coalesce, joins_only_what_differs_in_sequence_alone)
{
	for (int v6 = 0; v6 < 2; v6++)
		for (int udp = 0; udp < 2; udp++) {
			cr_assert_eq(FRAMES_OF_TWO(v6, udp, 1000, (void)0), 1);
			cr_assert_eq(FRAMES_OF_TWO(v6, udp, 999, (void)0), 1, "a shorter one ends the run");
			cr_assert_eq(FRAMES_OF_TWO(v6, udp, 1001, (void)0), 2, "a longer one");
			cr_assert_eq(FRAMES_OF_TWO(v6, udp, 0, (void)0), 2, "an empty one");
			cr_assert_eq(FRAMES_OF_TWO(v6, udp, 1000, s.tos ^= 1), 2, "ECN");
			cr_assert_eq(FRAMES_OF_TWO(v6, udp, 1000, s.tos ^= 0x80), 2, "DSCP");
			cr_assert_eq(FRAMES_OF_TWO(v6, udp, 1000, s.ttl--), 2, "TTL");
			cr_assert_eq(FRAMES_OF_TWO(v6, udp, 1000, s.src[3]++), 2, "source");
			cr_assert_eq(FRAMES_OF_TWO(v6, udp, 1000, s.dst[2]++), 2, "destination");
			cr_assert_eq(FRAMES_OF_TWO(v6, udp, 1000, s.sport++), 2, "source port");
			cr_assert_eq(FRAMES_OF_TWO(v6, udp, 1000, s.dport++), 2, "destination port");
			cr_assert_eq(
				FRAMES_OF_TWO(v6, udp, 1000, s.udp ^= 1; s.options_len = 0), 2, "protocol");
		}
	for (int v6 = 0; v6 < 2; v6++) {
		cr_assert_eq(FRAMES_OF_TWO(v6, false, 1000, s.seq++), 2, "gap");
		cr_assert_eq(FRAMES_OF_TWO(v6, false, 1000, s.seq -= 1000), 2, "retransmission");
		cr_assert_eq(FRAMES_OF_TWO(v6, false, 1000, s.ack++), 2, "acknowledgement");
		cr_assert_eq(FRAMES_OF_TWO(v6, false, 1000, s.window++), 2, "window");
		cr_assert_eq(FRAMES_OF_TWO(v6, false, 1000, s.options[11]++), 2, "option");
		cr_assert_eq(FRAMES_OF_TWO(v6, false, 1000, s.options_len = 8), 2, "fewer options");
		cr_assert_eq(FRAMES_OF_TWO(v6, false, 1000, s.flags = 0x18), 1, "PSH");
		for (unsigned bit = 0; bit < 8; bit++)
			if (bit != 3)
				cr_assert_eq(FRAMES_OF_TWO(v6, false, 1000, s.flags ^= 1u << bit), 2,
					"flag %u", bit);
		cr_assert_eq(FRAMES_OF_TWO(v6, true, 1000, s.no_udp_checksum = true), 2, "no UDP checksum");
	}
	cr_assert_eq(FRAMES_OF_TWO(true, false, 1000, s.flow_label++), 2, "flow label");
	cr_assert_eq(FRAMES_OF_TWO(false, false, 1000, s.df = false), 2, "DF");
	for (int udp = 0; udp < 2; udp++) {
		struct coalesce c;
		struct packet_spec s = flow(false, udp);

		s.df = false;
		reset(&c, TUN_CAN_TSO | TUN_CAN_USO);
		add(&c, 0, &s, 1000);
		next(&s, 1000);
		add(&c, 1, &s, 1000);
		next(&s, 1000);
		s.id++;
		add(&c, 2, &s, 1000);
		coalesce_flush(&c);
		cr_assert_eq(sink.nr_frames, 2, "without DF the id must count on");
		cr_assert_eq(sink.frame[0].packets, 2);
		coalesce_done(&c);
	}
}

Test(coalesce, push_ends_a_run_at_once)
{
	struct packet_spec s = flow(false, false);
	struct coalesce c;

	reset(&c, TUN_CAN_TSO);
	add(&c, 0, &s, 1000);
	next(&s, 1000);
	s.flags |= 0x08;
	add(&c, 1, &s, 1000);
	cr_assert_eq(sink.nr_frames, 1);
	cr_assert_eq(sink.frame[0].packets, 2);
	next(&s, 1000);
	add(&c, 2, &s, 1000);
	cr_assert_eq(sink.nr_frames, 2, "nothing can follow it: it leaves alone");
	coalesce_done(&c);
}

Test(coalesce, short_segment_ends_a_run_at_once)
{
	struct packet_spec s = flow(true, true);
	struct coalesce c;

	reset(&c, TUN_CAN_USO);
	add(&c, 0, &s, 1000);
	add(&c, 1, &s, 1000);
	add(&c, 2, &s, 10);
	cr_assert_eq(sink.nr_frames, 1);
	cr_assert_eq(sink.frame[0].packets, 3);
	coalesce_done(&c);
}

Test(coalesce, passes_all_singly_without_offloads)
{
	for (int udp = 0; udp < 2; udp++) {
		struct packet_spec s = flow(false, udp);
		struct coalesce c;

		reset(&c, udp ? TUN_CAN_TSO : TUN_CAN_USO);
		for (unsigned i = 0; i < 10; i++) {
			add(&c, i, &s, 1000);
			next(&s, 1000);
			cr_assert_eq(sink.nr_frames, i + 1);
		}
		coalesce_done(&c);
	}
}

Test(coalesce, leaves_broken_ip_headers_broken)
{
	struct packet_spec s = flow(false, false);
	struct coalesce c;

	reset(&c, TUN_CAN_TSO);
	for (unsigned i = 0; i < 2; i++) {
		const uint32_t len = packet_build(&s, payload, 1000, false, input[i]);

		next(&s, 1000);
		input[i][10] ^= 1;
		coalesce_add(&c, input[i], len);
		cr_assert_eq(sink.nr_frames, i + 1);
		cr_assert_eq(memcmp(sink.packet[i].data, input[i], len), 0);
	}
	coalesce_done(&c);
}

Test(coalesce, pure_acknowledgement_keeps_its_place)
{
	struct packet_spec s = flow(false, false);
	struct coalesce c;

	reset(&c, TUN_CAN_TSO);
	add(&c, 0, &s, 1000);
	next(&s, 1000);
	add(&c, 1, &s, 0);
	cr_assert_eq(sink.nr_frames, 2);
	cr_assert_eq(sink.packet[0].len, 52 + 1000);
	cr_assert_eq(sink.packet[1].len, 52);
	coalesce_done(&c);
}

Test(coalesce, unattributable_packets_flush_everything_before_them)
{
	struct packet_spec s = flow(false, false), u = flow(true, true);
	struct coalesce c;
	uint32_t len;

	for (unsigned kind = 0; kind < 5; kind++) {
		reset(&c, TUN_CAN_TSO | TUN_CAN_USO);
		add(&c, 0, &s, 1000);
		add(&c, 1, &u, 1000);
		len = packet_build(&s, payload, 100, false, input[2]);
		switch (kind) {
		case 0: /* ICMP */
			input[2][9] = 1;
			break;
		case 1: /* fragment */
			store_be16(input[2] + 6, 0x2000);
			break;
		case 2: /* IPv4 options */
			input[2][0] = 0x46;
			break;
		case 3: /* IPv6 extension header */
			len = packet_build(&u, payload, 100, false, input[2]);
			input[2][6] = 60;
			break;
		default: /* too short for its ports */
			len = 22;
			store_be16(input[2] + 2, 22);
			break;
		}
		coalesce_add(&c, input[2], len);
		cr_assert_eq(sink.nr_frames, 3);
		cr_assert_eq(sink.packet[2].len, len);
		cr_assert_eq(memcmp(sink.packet[2].data, input[2], len), 0);
		coalesce_done(&c);
	}
}

Test(coalesce, keeps_eight_flows_apart_and_lets_the_longest_unused_go)
{
	struct packet_spec s[COALESCE_FLOWS + 1];
	struct coalesce c;
	unsigned slot = 0;

	reset(&c, TUN_CAN_TSO);
	for (unsigned f = 0; f < ARRAY_LEN(s); f++) {
		s[f] = flow(f & 1, false);
		s[f].sport = (uint16_t)(1000 + f);
	}
	for (unsigned round = 0; round < 3; round++)
		for (unsigned f = 0; f < COALESCE_FLOWS; f++) {
			add(&c, slot++, &s[f], 500);
			next(&s[f], 500);
		}
	cr_assert_eq(sink.nr_frames, 0);
	add(&c, slot++, &s[0], 500);
	add(&c, slot++, &s[COALESCE_FLOWS], 500);
	cr_assert_eq(sink.nr_frames, 1);
	cr_assert_eq(load_be16(sink.packet[0].data + 40), 1001, "flow 0 was used since");
	coalesce_flush(&c);
	cr_assert_eq(sink.nr_frames, COALESCE_FLOWS + 1);
	coalesce_done(&c);
}

Test(coalesce, flush_emits_the_longest_unused_first)
{
	struct packet_spec s[3];
	struct coalesce c;

	reset(&c, TUN_CAN_TSO);
	for (unsigned f = 0; f < 3; f++) {
		s[f] = flow(true, false);
		s[f].sport = (uint16_t)(1000 + f);
		add(&c, f, &s[f], 500);
		next(&s[f], 500);
	}
	s[1].flags |= 0x08;
	add(&c, 3, &s[1], 500);
	coalesce_flush(&c);
	cr_assert_eq(sink.nr, 4);
	cr_assert_eq(load_be16(sink.packet[0].data + 40), 1001, "ended by its PSH");
	cr_assert_eq(load_be16(sink.packet[2].data + 40), 1000);
	cr_assert_eq(load_be16(sink.packet[3].data + 40), 1002);
	coalesce_done(&c);
}

/* --- random traffic against the naive model --- */

static bool same_flow(const uint8_t *a, const uint8_t *b)
{
	const bool v6 = a[0] >> 4 == 6;

	if (a[0] != b[0] && a[0] >> 4 != b[0] >> 4)
		return false;
	return v6 ? a[6] == b[6] && !memcmp(a + 8, b + 8, 36) : a[9] == b[9] && !memcmp(a + 12, b + 12, 12);
}

static bool is_barrier(const uint8_t *p)
{
	return p[0] >> 4 == 6 ? p[6] != 6 && p[6] != 17
			      : p[0] != 0x45 || (p[9] != 6 && p[9] != 17) || (p[6] & 0x3f);
}

/*
 * Equal but for the id of an atomic packet (RFC 6864), which may count differently, and the header checksum.
 */
static bool same_packet(const uint8_t *out, const uint8_t *in, uint32_t len)
{
	if (in[0] == 0x45 && (in[6] & 0x40) && naive_sum(0, in, 20) == 0xffff)
		return naive_sum(0, out, 20) == 0xffff && !memcmp(out, in, 4) &&
		       !memcmp(out + 6, in + 6, 4) && !memcmp(out + 12, in + 12, len - 12);
	return !memcmp(out, in, len);
}

static uint32_t random_packet(struct packet_spec *flows, unsigned nr_flows, uint64_t *state, uint8_t *out)
{
	struct packet_spec *s = &flows[rnd_below(state, nr_flows)];
	struct packet_spec now = *s;
	uint32_t payload_len = s->options[39] ? s->options[39] * 5u : 1300, len;

	switch (rnd_below(state, 24)) {
	case 0:
		payload_len = rnd_below(state, 1400);
		break;
	case 1:
		payload_len = 0;
		break;
	case 2:
		now.flags |= 0x08;
		break;
	case 3:
		now.flags = (uint8_t)rnd(state);
		break;
	case 4:
		now.seq = s->seq += rnd_below(state, 3000);
		break;
	case 5:
		now.id = s->id += (uint16_t)rnd_below(state, 4);
		break;
	case 6:
		now.tos = s->tos ^= 3;
		break;
	case 7:
		now.ack = s->ack += 100;
		break;
	case 8:
		now.window = s->window += 1;
		break;
	case 9:
		now.no_udp_checksum = true;
		break;
	case 10:
		now.options[0]++;
		break;
	default:
		break;
	}
	if (now.udp)
		now.options_len = 0;
	len = packet_build(&now, payload + rnd_below(state, 1000), payload_len, false, out);
	next(s, payload_len);
	switch (rnd_below(state, 100)) {
	case 0:
		out[now.v6 ? 6 : 9] = 1;
		break;
	case 1:
		if (!now.v6)
			store_be16(out + 6, 0x2010);
		break;
	case 2:
		if (!now.v6)
			out[11] ^= 1;
		break;
	default:
		break;
	}
	return len;
}

Test(coalesce, random_traffic_comes_out_packet_for_packet_in_flow_order, .timeout = 120)
{
	uint64_t state = rnd_seed("coalesce");
	static uint8_t original[PACKETS_MAX][2048];
	static uint32_t lens[PACKETS_MAX];
	uint64_t joined = 0;

	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)rnd(&state);
	for (unsigned round = 0; round < 400; round++) {
		const unsigned nr_flows = 1 + rnd_below(&state, 12), nr = 1 + rnd_below(&state, PACKETS_MAX);
		static bool taken[OUT_MAX];
		struct packet_spec flows[12];
		struct coalesce c;

		for (unsigned f = 0; f < nr_flows; f++)
			packet_random(&flows[f], &state);
		reset(&c, rnd_below(&state, 8) ? TUN_CAN_TSO | TUN_CAN_USO : rnd_below(&state, 4));
		for (unsigned i = 0; i < nr; i++) {
			lens[i] = random_packet(flows, nr_flows, &state, input[i]);
			memcpy(original[i], input[i], lens[i]);
			coalesce_add(&c, input[i], lens[i]);
			if (rnd_below(&state, 60) == 0)
				coalesce_flush(&c);
		}
		coalesce_flush(&c);
		coalesce_done(&c);
		joined += nr - sink.nr_frames;

		cr_assert_eq(sink.nr, nr, "round %u", round);
		memset(taken, 0, sizeof(taken));
		for (unsigned i = 0; i < nr; i++) {
			unsigned o = 0;

			/* the first packet of this flow that is still there must be this one */
			if (is_barrier(original[i]))
				o = i; /* nothing passes it in either direction */
			else
				while (o < nr && (taken[o] || is_barrier(sink.packet[o].data) ||
							 !same_flow(original[i], sink.packet[o].data)))
					o++;
			cr_assert(o < nr && !taken[o], "round %u: packet %u is lost", round, i);
			cr_assert_eq(sink.packet[o].len, lens[i], "round %u, packet %u", round, i);
			cr_assert(same_packet(sink.packet[o].data, original[i], lens[i]),
				"round %u, packet %u", round, i);
			taken[o] = true;
		}
	}
	cr_assert(joined > 1000, "the traffic was not such that anything could be joined");
}

/* --- sending in pieces --- */

static struct tun_mem *mem;
static unsigned send_again;

static void send_or_split(void *arg, struct tun_frame *frame, unsigned packets)
{
	struct tun_queue *queue = tun_mem_queue(mem);
	int err = queue->ops->send(queue, frame);

	if (err == -EOPNOTSUPP)
		while ((err = tun_frame_split_send(queue, frame)) == -EAGAIN) {
			/* make room, as the kernel would in its time */
			for (struct tun_mem_packet *p; (p = tun_mem_take(mem)); free(p))
				keep(p->data, p->meta.len);
			send_again++;
		}
	cr_assert_eq(err, 0);
}

Test(coalesce, refused_frame_is_sent_in_pieces_also_when_room_is_short)
{
	for (int kind = 0; kind < 4; kind++) {
		struct packet_spec s = flow(kind & 1, kind & 2);
		static uint8_t original[40][2048];
		struct coalesce c;
		uint32_t len = 0;

		s.df = true;
		reset(&c, TUN_CAN_TSO | TUN_CAN_USO);
		c.emit = send_or_split;
		send_again = 0;
		cr_assert_eq(tun_mem_new(&mem, 0, TUN_CAN_TSO | TUN_CAN_USO, 7, NULL, NULL), 0);
		tun_mem_reject(mem, TUN_CAN_TSO | TUN_CAN_USO);
		for (unsigned i = 0; i < 40; i++) {
			len = packet_build(&s, payload + i, 1000, false, input[i]);
			memcpy(original[i], input[i], len);
			coalesce_add(&c, input[i], len);
			next(&s, 1000);
		}
		coalesce_flush(&c);
		for (struct tun_mem_packet *p; (p = tun_mem_take(mem)); free(p))
			keep(p->data, p->meta.len);
		cr_assert(send_again >= 5);
		cr_assert_eq(
			atomic_load(&tun_mem_queue(mem)->offloads), kind & 2 ? TUN_CAN_TSO : TUN_CAN_USO);
		cr_assert_eq(sink.nr, 40);
		for (unsigned i = 0; i < 40; i++) {
			cr_assert_eq(sink.packet[i].len, len);
			cr_assert_eq(memcmp(sink.packet[i].data, original[i], len), 0, "kind %d, packet %u",
				kind, i);
		}
		coalesce_done(&c);
		tun_mem_free(mem);
	}
}
