#include "core/protocol/egress.h"

#include <linux/virtio_net.h>

#include "crypto/wire.h"
#include "tests/unit/protocol/support.h"

#define HEADERS 40 /* IPv4 and TCP */
#define LONG_PACKET 60000

static struct pair p;
static uint8_t packet[65535];

static void init(void)
{
	pair_init(&p);
}

static void done(void)
{
	pair_done(&p);
}

TestSuite(egress, .init = init, .fini = done);

/* A TCP super-packet from a to b in packet[] that is cut every gso_size bytes of payload. */
static struct train_packet make_super(uint32_t payload_len, uint16_t gso_size)
{
	packet_make(packet, "10.0.0.1", "10.0.0.2", 0, HEADERS + payload_len);
	packet[9] = IPPROTO_TCP;
	memset(packet + 20, 0, 20);
	packet[20 + 12] = 5 << 4;
	packet[20 + 13] = 0x10; /* ACK */
	return (struct train_packet){.len = HEADERS + payload_len,
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		.gso_size = gso_size,
		.csum_start = 20,
		.csum_offset = 16};
}

/* What b's TUN got, in order: plain packets have the ids from first to last, super_segments of TCP come
 * between before and before + 1. */
static void expect_delivered(uint64_t first, uint64_t last, uint64_t before, unsigned super_segments)
{
	struct tun_mem_packet *got;
	uint64_t next = first;
	unsigned segments = 0;

	while ((got = tun_mem_take(p.b->tun))) {
		if (got->data[9] == IPPROTO_TCP) {
			cr_assert_eq(next, before + 1);
			segments++;
		} else {
			cr_assert_eq(packet_id(got->data), next);
			next++;
		}
		free(got);
	}
	cr_assert_eq(next, last + 1);
	cr_assert_eq(segments, super_segments);
}

/* ---- the queue of what waits for a session ---- */

Test(egress, of_too_many_staged_packets_the_oldest_are_dropped)
{
	for (unsigned id = 1; id <= STAGED_SEGMENTS_MAX; id++)
		pair_send_ab(&p, id);
	cr_assert_eq(node_drops(p.a, DROP_EGRESS_STAGED_OVERFLOW), 0);
	cr_assert_eq(p.pb->staged_segments, STAGED_SEGMENTS_MAX);
	for (unsigned id = STAGED_SEGMENTS_MAX + 1; id <= STAGED_SEGMENTS_MAX + 72; id++)
		pair_send_ab(&p, id);
	cr_assert_eq(node_drops(p.a, DROP_EGRESS_STAGED_OVERFLOW), 72);
	cr_assert_eq(p.pb->staged_segments, STAGED_SEGMENTS_MAX);
	cr_assert_eq(p.a->dev.staged_bytes, 64 * STAGED_SEGMENTS_MAX);

	pair_exchange(&p);
	expect_delivered(73, STAGED_SEGMENTS_MAX + 72, 0, 0);
	cr_assert_eq(p.a->dev.staged_bytes, 0);
}

Test(egress, a_staged_super_packet_counts_its_segments)
{
	for (unsigned id = 1; id <= 120; id++)
		pair_send_ab(&p, id);
	/* Ten: the two oldest make room. */
	const struct train_packet meta = make_super(9500, 1000);
	node_tun_super(p.a, &meta, packet);
	cr_assert_eq(p.pb->staged_segments, STAGED_SEGMENTS_MAX);
	cr_assert_eq(node_drops(p.a, DROP_EGRESS_STAGED_OVERFLOW), 2);
	pair_send_ab(&p, 121);
	cr_assert_eq(node_drops(p.a, DROP_EGRESS_STAGED_OVERFLOW), 3);

	pair_exchange(&p);
	expect_delivered(4, 121, 120, 10);
}

Test(egress, a_dropped_super_packet_counts_its_segments)
{
	const struct train_packet meta = make_super(9500, 1000);

	node_tun_super(p.a, &meta, packet);
	for (unsigned id = 1; id <= STAGED_SEGMENTS_MAX - 9; id++)
		pair_send_ab(&p, id);
	cr_assert_eq(node_drops(p.a, DROP_EGRESS_STAGED_OVERFLOW), 10);
	cr_assert_eq(p.pb->staged_segments, STAGED_SEGMENTS_MAX - 9);

	pair_exchange(&p);
	expect_delivered(1, STAGED_SEGMENTS_MAX - 9, 0, 0);
}

Test(egress, a_super_packet_that_alone_is_too_many_is_kept_alone)
{
	pair_send_ab(&p, 1);
	pair_send_ab(&p, 2);
	const struct train_packet meta = make_super(60000, 300);
	node_tun_super(p.a, &meta, packet);
	cr_assert_eq(node_drops(p.a, DROP_EGRESS_STAGED_OVERFLOW), 2);
	cr_assert_eq(p.pb->staged_segments, 200);
	pair_send_ab(&p, 3);
	cr_assert_eq(node_drops(p.a, DROP_EGRESS_STAGED_OVERFLOW), 202);

	pair_exchange(&p);
	expect_delivered(3, 3, 0, 0);
}

Test(egress, all_staged_packets_together_are_bounded)
{
	enum { PEERS = 10, FIT = STAGED_BYTES_MAX / LONG_PACKET };
	struct peer *peers[PEERS];

	_Static_assert(
		(int)FIT < PEERS * STAGED_SEGMENTS_MAX, "the bound of all must come before that of each");
	for (unsigned i = 0; i < PEERS; i++) {
		const uint8_t key[NOISE_KEY_BYTES] = {9, (uint8_t)i};
		char address[32], allowed[32];

		snprintf(allowed, sizeof(allowed), "10.1.0.%u/32", i);
		snprintf(address, sizeof(address), "10.1.0.%u", i);
		peers[i] = node_add_peer(p.a, key, "192.0.2.9:9", allowed);
		packet_make(packet, "10.0.0.1", address, i, LONG_PACKET);
		for (unsigned n = 0; n < STAGED_SEGMENTS_MAX; n++) {
			node_tun_packet(p.a, packet, LONG_PACKET);
			cr_assert_leq(p.a->dev.staged_bytes, STAGED_BYTES_MAX);
		}
	}
	cr_assert_eq(p.a->dev.staged_bytes, FIT * LONG_PACKET);
	cr_assert_eq(node_drops(p.a, DROP_EGRESS_STAGED_OVERFLOW), PEERS * STAGED_SEGMENTS_MAX - FIT);

	/* What one gives up is there for the others. */
	egress_purge_staged(&p.a->dev, peers[0]);
	cr_assert_eq(p.a->dev.staged_bytes, (FIT - STAGED_SEGMENTS_MAX) * LONG_PACKET);
	cr_assert_eq(node_drops(p.a, DROP_EGRESS_STAGED_EXPIRED), STAGED_SEGMENTS_MAX);
	const unsigned before = peers[PEERS - 1]->staged_segments;
	node_tun_packet(p.a, packet, LONG_PACKET);
	cr_assert_eq(peers[PEERS - 1]->staged_segments, before + 1);
}

/* ---- what fits no datagram ---- */

/* Sends packet[] in a train of its own, and fails unless it is dropped, counted as nr segments, and the train
 * has not been touched. */
static void expect_too_long(const struct train_packet *meta, unsigned nr)
{
	static struct train train, copy;
	const uint64_t before = node_drops(p.a, DROP_EGRESS_TOO_LONG);

	train_reset(&train);
	memset(train.data, 0xa5, sizeof(train.data));
	memcpy(train.data, packet, meta->len);
	train.packet[0] = *meta;
	train.nr = 1;
	train.used = meta->len + TRAIN_GAP;
	memcpy(&copy, &train, sizeof(copy));
	egress_train(&p.a->egress, &train);
	cr_assert_eq(pool_in_use(&p.a->batches), 0, "a slot was taken");
	node_settle(p.a);
	cr_assert_eq(node_drops(p.a, DROP_EGRESS_TOO_LONG), before + nr);
	cr_assert(!memcmp(&copy, &train, sizeof(copy)));
	cr_assert_eq(p.pb->staged_segments, 0);
	expect_silence(p.a);
}

Test(egress, a_packet_too_long_for_a_datagram_is_dropped)
{
	const uint32_t longest = (GSO_DATAGRAM_MAX - WIRE_DATA_OVERHEAD) & ~15u;

	/* As `ip link set mtu 65535` would have it. */
	atomic_store(&p.a->dev.mtu, 65535);
	/* Without a session: it must not wait for one, nor ask for one. */
	packet_make(packet, "10.0.0.1", "10.0.0.2", 1, 65500);
	expect_too_long(&(struct train_packet){.len = 65500}, 1);
	cr_assert_null(p.pb->handshake_session);

	pair_connect(&p);
	for (uint32_t len = longest - 20; len <= 65535; len++) {
		packet_make(packet, "10.0.0.1", "10.0.0.2", 1, len);
		if (len > longest) {
			expect_too_long(&(struct train_packet){.len = len}, 1);
			continue;
		}
		node_tun_packet(p.a, packet, len);
		struct datagram *d = expect_sent(p.a, WIRE_DATA);
		cr_assert(d->len >= WIRE_DATA_OVERHEAD + len && d->len <= GSO_DATAGRAM_MAX);
		free(d);
	}
}

Test(egress, a_super_packet_of_segments_too_long_is_dropped)
{
	atomic_store(&p.a->dev.mtu, 65535);
	pair_connect(&p);
	struct train_packet meta = make_super(65535 - HEADERS, 65535);
	expect_too_long(&meta, 1);
	/* One too long, and a short one that does not go alone. */
	meta = make_super(65535 - HEADERS, 65450);
	expect_too_long(&meta, 2);
	/* The same bytes in segments that fit. */
	meta = make_super(65535 - HEADERS, 65000);
	node_tun_super(p.a, &meta, packet);
	cr_assert_eq(discard_sent(p.a, WIRE_DATA), 2);
}
