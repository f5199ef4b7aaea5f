/* Checksum, splitting and coalescing, against the naive packets of the unit tests. */
#include "perf/micro.h"

#include <linux/virtio_net.h>
#include <sodium.h>
#include <stdlib.h>

#include "tests/unit/tun/packets.h"
#include "tun/checksum.h"
#include "tun/coalesce.h"
#include "tun/split.h"

#define MTU 1420
#define SUMS 32
#define SUPER_BYTES 65535
#define RUN_MAX 64
#define RUN_SLOT_BYTES 1536

/* ---- checksum ---- */

struct sums {
	uint32_t len;
	uint16_t expected;
	_Alignas(4096) uint8_t data[SUPER_BYTES + 1];
};

static void *setup_sum(const struct stage *s, const char **why)
{
	struct sums *c = micro_alloc(sizeof(*c));

	c->len = s->n;
	randombytes_buf(c->data, sizeof(c->data));
	c->expected = htobe16(naive_sum(0, c->data, c->len));
	return c;
}

static unsigned turn_sum(void *ctx)
{
	const struct sums *c = ctx;
	unsigned good = 0;

	for (unsigned i = 0; i < SUMS; i++)
		good += checksum_fold(checksum_add(0, c->data, c->len)) == c->expected;
	return good;
}

static void check_sum(void *ctx)
{
	struct sums *c = ctx;

	micro_require(turn_sum(c) == SUMS);
	c->data[c->len - 1] ^= 1;
	micro_require(turn_sum(c) == 0);
	c->data[c->len - 1] ^= 1;
}

/* ---- split ---- */

struct shape {
	const char *name;
	bool v6, udp, super;
	uint32_t payload_len; /* in all */
	uint32_t gso_size;
	unsigned packets; /* as many of them in a turn */
};

static const struct shape shapes[] = {
	{"tso4-64k", .super = true, .payload_len = 65000, .gso_size = 1368, .packets = 1},
	{"tso6-64k", .v6 = true, .super = true, .payload_len = 65000, .gso_size = 1348, .packets = 1},
	{"uso4-64k", .udp = true, .super = true, .payload_len = 64 * 1000, .gso_size = 1000, .packets = 1},
	{"plain-64", .udp = true, .payload_len = 64, .packets = 64},
	{"plain-1420", .payload_len = 1368, .packets = 45},
};

struct cut {
	const struct shape *shape;
	struct packet_spec spec;
	struct train_packet packet;
	unsigned nr; /* segments in all */
	struct split split;
	_Alignas(4096) uint8_t payload[SUPER_BYTES];
	_Alignas(4096) uint8_t original[SUPER_BYTES + TRAIN_GAP];
	_Alignas(4096) uint8_t work[SUPER_BYTES + TRAIN_GAP];
};

static void *setup_split(const struct stage *s, const char **why)
{
	const struct shape *shape = s->kind;
	struct cut *c = micro_alloc(sizeof(*c));
	const uint8_t type = shape->udp ? 5 : shape->v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;

	c->shape = shape;
	c->spec = (struct packet_spec){
		.v6 = shape->v6,
		.udp = shape->udp,
		.src = {10, 0, 0, 2},
		.dst = {10, 0, 0, 3},
		.ttl = 64,
		.df = true,
		.sport = 40000,
		.dport = 5201,
		.seq = 1000,
		.ack = 2000,
		.window = 512,
		.flags = 0x18,
		.options_len = shape->udp ? 0 : 12,
		.options = {1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8},
	};
	randombytes_buf(c->payload, shape->payload_len);
	c->packet = (struct train_packet){
		.len = packet_build(&c->spec, c->payload, shape->payload_len, true, c->original),
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = shape->super ? type : VIRTIO_NET_HDR_GSO_NONE,
		.gso_size = (uint16_t)shape->gso_size,
		.csum_start = (uint16_t)packet_l4_offset(&c->spec),
		.csum_offset = shape->udp ? 6 : 16,
	};
	c->nr = shape->super ? (shape->payload_len + shape->gso_size - 1) / shape->gso_size : shape->packets;
	return c;
}

static void prepare_split(void *ctx)
{
	struct cut *c = ctx;

	memcpy(c->work, c->original, c->packet.len);
}

static unsigned turn_split(void *ctx)
{
	struct cut *c = ctx;
	struct split_segment seg;
	unsigned nr = 0;

	for (unsigned i = 0; i < c->shape->packets; i++) {
		if (split_begin(&c->split, c->work, &c->packet, MTU))
			return 0;
		while (split_next(&c->split, &seg))
			nr++;
	}
	return nr;
}

static void check_split(void *ctx)
{
	struct cut *c = ctx;
	struct split_segment seg;
	uint8_t expected[2 * MTU];
	uint32_t len;
	unsigned nr = 0;

	prepare_split(c);
	micro_require(!split_begin(&c->split, c->work, &c->packet, MTU));
	for (; split_next(&c->split, &seg); nr++) {
		if (c->shape->super)
			len = packet_segment(&c->spec, c->payload, c->shape->payload_len, c->shape->gso_size,
				nr, expected);
		else
			len = packet_build(&c->spec, c->payload, c->shape->payload_len, false, expected);
		micro_require(seg.len == len && !memcmp(seg.data, expected, len));
		micro_require(seg.padded_len == MIN(ALIGN_UP(len, 16u), MAX(len, (uint32_t)MTU)));
	}
	micro_require(nr * (c->shape->super ? 1 : c->shape->packets) == c->nr);
}

/* ---- coalesce ---- */

struct run {
	const char *name;
	bool v6, udp;
	unsigned flows; /* taking turns */
	unsigned nr;    /* packets in all */
	uint32_t payload_len;
	unsigned frames; /* that come out */
};

static const struct run runs[] = {
	{"tcp4-run", .flows = 1, .nr = 45, .payload_len = 1368, .frames = 1},
	{"tcp6-run", .v6 = true, .flows = 1, .nr = 45, .payload_len = 1348, .frames = 1},
	{"udp4-run", .udp = true, .flows = 1, .nr = 45, .payload_len = 1392, .frames = 1},
	{"udp4-64", .udp = true, .flows = 1, .nr = 64, .payload_len = 64, .frames = 1},
	{"tcp4-4-flows", .flows = 4, .nr = 48, .payload_len = 1368, .frames = 4},
	/* More than are looked at: none of them finds its flow open. */
	{"tcp4-16-flows", .flows = 16, .nr = 64, .payload_len = 1368, .frames = 64},
	{"tcp4-acks", .flows = 1, .nr = 32, .payload_len = 0, .frames = 32},
};

struct join {
	const struct run *run;
	struct coalesce coalesce;
	struct packet_spec spec[RUN_MAX];
	uint32_t len;
	unsigned frames, packets;
	bool checking;
	_Alignas(4096) uint8_t payload[RUN_SLOT_BYTES];
	_Alignas(4096) uint8_t original[RUN_MAX][RUN_SLOT_BYTES];
	_Alignas(4096) uint8_t work[RUN_MAX][RUN_SLOT_BYTES];
};

/* Its payload pieces must be the packets' payload; what it says of itself is checked by the splitter. */
static void check_frame(struct join *j, struct tun_frame *frame, unsigned packets)
{
	static uint8_t whole[SUPER_BYTES + TRAIN_GAP];
	const struct train_packet fields = {.len = frame->len,
		.flags = frame->flags,
		.gso_type = frame->gso_type,
		.gso_size = frame->gso_size,
		.csum_start = frame->csum_start,
		.csum_offset = frame->csum_offset};
	struct split_segment seg;
	struct split split;
	uint32_t at = 0;
	unsigned i = 0;

	for (uint32_t p = 1; p < frame->nr_iov; p++) {
		memcpy(whole + at, frame->iov[p].iov_base, frame->iov[p].iov_len);
		at += (uint32_t)frame->iov[p].iov_len;
	}
	micro_require(at == frame->len && !split_begin(&split, whole, &fields, 0));
	for (; split_next(&split, &seg); i++) {
		/* One flow in order; of several, the port and the sequence number tell. */
		const uint8_t *l4 = seg.data + (j->run->v6 ? 40 : 20);
		unsigned from = j->packets - packets + i;

		if (j->run->flows > 1)
			from = load_be16(l4) - 40000u +
			       (load_be32(l4 + 4) - 1000) / j->run->payload_len * j->run->flows;
		micro_require(from < j->run->nr && seg.len == j->len &&
			      !memcmp(seg.data, j->original[from], j->len));
	}
	micro_require(i == packets);
}

static void emit(void *arg, struct tun_frame *frame, unsigned packets)
{
	struct join *j = arg;

	j->frames++;
	j->packets += packets;
	if (unlikely(j->checking))
		check_frame(j, frame, packets);
}

static void *setup_coalesce(const struct stage *s, const char **why)
{
	const struct run *run = s->kind;
	struct join *j = micro_alloc(sizeof(*j));

	j->run = run;
	micro_require(!coalesce_init(&j->coalesce, emit, j));
	j->coalesce.offloads = TUN_CAN_TSO | TUN_CAN_USO;
	randombytes_buf(j->payload, sizeof(j->payload));
	for (unsigned i = 0; i < run->nr; i++) {
		const struct packet_spec spec = {
			.v6 = run->v6,
			.udp = run->udp,
			.src = {10, 0, 0, 2},
			.dst = {10, 0, 0, 3},
			.ttl = 64,
			.df = true,
			.id = (uint16_t)(i / run->flows), /* as the kernel numbers the segments of one
							     super-packet */
			.sport = (uint16_t)(40000 + i % run->flows),
			.dport = 5201,
			.seq = 1000 + i / run->flows * run->payload_len,
			.ack = 2000,
			.window = 512,
			.flags = 0x10,
			.options_len = run->udp ? 0 : 12,
			.options = {1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8},
		};

		j->len = packet_build(&spec, j->payload, run->payload_len, false, j->original[i]);
	}
	return j;
}

static void prepare_coalesce(void *ctx)
{
	struct join *j = ctx;

	for (unsigned i = 0; i < j->run->nr; i++)
		memcpy(j->work[i], j->original[i], j->len);
	j->frames = j->packets = 0;
}

static unsigned turn_coalesce(void *ctx)
{
	struct join *j = ctx;

	for (unsigned i = 0; i < j->run->nr; i++)
		coalesce_add(&j->coalesce, j->work[i], j->len);
	coalesce_flush(&j->coalesce);
	return j->frames == j->run->frames ? j->packets : 0;
}

static void check_coalesce(void *ctx)
{
	struct join *j = ctx;

	prepare_coalesce(j);
	j->checking = true;
	micro_require(turn_coalesce(j) == j->run->nr);
	j->checking = false;
}

static void done_coalesce(void *ctx)
{
	struct join *j = ctx;

	coalesce_done(&j->coalesce);
	free(j);
}

void micro_tun_stages(void)
{
	static const unsigned lengths[] = {20, 64, 256, 1280, 1420, 65535};
	static const struct stage_ops sum = {setup_sum, check_sum, NULL, turn_sum, free};
	static const struct stage_ops split = {setup_split, check_split, prepare_split, turn_split, free};
	static const struct stage_ops coalesce = {
		setup_coalesce, check_coalesce, prepare_coalesce, turn_coalesce, done_coalesce};
	struct stage s = {.ops = &sum, .unit = "call", .units = SUMS, .hot = true};

	for (unsigned i = 0; i < ARRAY_LEN(lengths); i++) {
		s.n = lengths[i];
		micro_add(&s, "checksum/%u", s.n);
	}
	s = (struct stage){.ops = &split, .unit = "packet", .hot = true};
	for (unsigned i = 0; i < ARRAY_LEN(shapes); i++) {
		s.kind = &shapes[i];
		s.units = shapes[i].super
				  ? (shapes[i].payload_len + shapes[i].gso_size - 1) / shapes[i].gso_size
				  : shapes[i].packets;
		micro_add(&s, "split/%s", shapes[i].name);
	}
	s = (struct stage){.ops = &coalesce, .unit = "packet", .hot = true};
	for (unsigned i = 0; i < ARRAY_LEN(runs); i++) {
		s.kind = &runs[i];
		s.units = runs[i].nr;
		micro_add(&s, "coalesce/%s", runs[i].name);
	}
}
