#include "core/protocol/egress.h"

#include <errno.h>
#include <stdlib.h>

#include "crypto/wire.h"
#include "tun/inner.h"

/* Unreachables: a hundred a second, in bursts of fifty at most. That is enough for every interactive sender,
 * and a scan of addresses cannot make us send more. */
#define ICMP_INTERVAL_NS (10 * NS_PER_MS)
#define ICMP_BURST_NS (50 * ICMP_INTERVAL_NS)
#define UNREACHABLE_BYTES_MAX 1280
/* The longest IP packet that fits a datagram when padded and sealed. An MTU can be set beyond it. */
#define SEGMENT_BYTES_MAX ((GSO_DATAGRAM_MAX - WIRE_DATA_OVERHEAD) & ~15u)

struct staged_packet {
	struct staged_packet *next;
	unsigned segments;
	struct train_packet packet; /* without its offset: the bytes are in data */
	CACHE_ALIGNED uint8_t data[];
};

/* Where the last packet of a train went, version 0 none: a train mostly repeats one destination. */
struct route_cache {
	struct peer *peer;
	uint8_t version;
	uint8_t dst[16];
};

/* Packets to one peer, one after the other in a train: one session check and one timer update for all. */
struct peer_run {
	struct peer *peer;
	struct keypair *keypair; /* NULL: they are staged */
	uint64_t wire_bytes;
};

/* The segments of one packet on their way into slots of the GSO queue: the cipher calls source.next for
 * each. */
struct seal_run {
	struct aead_seal_source source;
	struct device *dev;
	struct peer *peer;
	struct keypair *keypair;
	struct split *split;
	uint8_t tos;
	uint64_t wire_bytes;
};

/* The one empty segment of a keepalive. */
struct empty_run {
	struct aead_seal_source source;
	uint8_t *dst;
};

static struct peer *route(struct route_cache *c, const struct device *dev, const uint8_t *packet);
static void run_to(struct peer_run *run, struct device *dev, struct peer *peer);
static void run_end(const struct peer_run *run, struct device *dev);
static void unreachable(struct egress *e, const uint8_t *packet, uint32_t len);
static void stage(struct device *dev, struct peer *peer, const uint8_t *data, const struct train_packet *p,
	unsigned segments);
static struct staged_packet *unstage(struct device *dev, struct peer *peer);
static void drop_oldest_staged(struct device *dev, struct peer *peer, enum drop_reason why);
static uint64_t seal(
	struct device *dev, struct peer *peer, struct keypair *k, struct split *split, uint8_t tos);
static bool seal_next(struct aead_seal_source *source, struct aead_seal_seg *seg);
static bool empty_next(struct aead_seal_source *source, struct aead_seal_seg *seg);

void egress_init(struct egress *e, struct device *dev, void (*inject)(void *, uint8_t *, uint32_t), void *arg)
{
	*e = (struct egress){
		.dev = dev, .inject = inject, .inject_arg = arg, .icmp_credit_ns = ICMP_BURST_NS};
}

void egress_train(struct egress *e, struct train *train)
{
	struct device *dev = e->dev;
	const uint32_t mtu = atomic_load_explicit(&dev->mtu, memory_order_relaxed);
	const uint64_t segments = counter_read(&dev->egress_counters.segments);
	struct route_cache routes = {0};
	struct peer_run run = {0};

	device_assert_held(dev);
	counter_add(&dev->egress_counters.trains, 1);
	counter_add(&dev->egress_counters.packets, train->nr);
	for (uint32_t i = 0; i < train->nr; i++) {
		const struct train_packet *p = &train->packet[i];
		uint8_t *data = train->data + p->offset;

		if (unlikely(!dev->up)) {
			drop(dev->drops, DROP_EGRESS_DOWN, 1);
			continue;
		}
		if (unlikely(split_begin(&e->split, data, p, mtu))) {
			drop(dev->drops, DROP_EGRESS_MALFORMED, 1);
			continue;
		}
		if (unlikely(e->split.max_segment > SEGMENT_BYTES_MAX)) {
			drop(dev->drops, DROP_EGRESS_TOO_LONG, e->split.nr);
			continue;
		}
		struct peer *peer = route(&routes, dev, data);
		if (unlikely(!peer)) {
			drop(dev->drops, DROP_EGRESS_NO_PEER, e->split.nr);
			unreachable(e, data, p->len);
			continue;
		}
		if (unlikely(!endpoint_is_set(&peer->endpoint))) {
			drop(dev->drops, DROP_EGRESS_NO_ENDPOINT, e->split.nr);
			unreachable(e, data, p->len);
			continue;
		}
		run_to(&run, dev, peer);
		if (unlikely(!run.keypair)) {
			stage(dev, peer, data, p, e->split.nr);
			continue;
		}
		run.wire_bytes += seal(dev, peer, run.keypair, &e->split, inner_ecn_encapsulate(data));
	}
	run_end(&run, dev);
	histogram_add(&dev->egress_counters.train_segments,
		(uint32_t)(counter_read(&dev->egress_counters.segments) - segments));
}

void egress_keepalive(struct device *dev, struct peer *peer)
{
	device_assert_held(dev);
	if (!dev->up || !endpoint_is_set(&peer->endpoint))
		return;
	/* What is staged says that we are alive as well as a keepalive does, and must not be overtaken by
	 * one. */
	if (egress_staged(dev, peer))
		return;
	struct keypair *k = device_send_keypair(dev, peer);
	if (!k)
		return;

	uint8_t *slot = gso_queue_slot(dev->queue, &peer->endpoint, 0, WIRE_DATA_OVERHEAD);
	if (!slot)
		return;
	const uint64_t counter = k->send_counter++;
	struct empty_run run = {.source.next = empty_next, .dst = slot + WIRE_DATA_HEADER_BYTES};
	wire_data_header(slot, k->remote_index, counter);
	dev->aead->seal_train(dev->aead, k->send_key, counter, &run.source);
	counter_add(&dev->counters.keepalives_sent, 1);
	device_sent(dev, peer, WIRE_DATA_OVERHEAD, false);
}

bool egress_staged(struct device *dev, struct peer *peer)
{
	device_assert_held(dev);
	if (!peer->staged_first || !dev->up || !endpoint_is_set(&peer->endpoint))
		return false;

	const uint32_t mtu = atomic_load_explicit(&dev->mtu, memory_order_relaxed);
	uint64_t bytes = 0;
	struct keypair *k = device_send_keypair(dev, peer);
	while (k && peer->staged_first) {
		struct staged_packet *s = unstage(dev, peer);
		struct split split;

		/* It was found well-formed before it was staged. */
		if (!split_begin(&split, s->data, &s->packet, mtu))
			bytes += seal(dev, peer, k, &split, inner_ecn_encapsulate(s->data));
		free(s);
		if (unlikely(k->send_counter >= REKEY_AFTER_MESSAGES))
			k = device_send_keypair(dev, peer);
	}
	if (bytes)
		device_sent(dev, peer, bytes, true);
	return bytes != 0;
}

void egress_purge_staged(struct device *dev, struct peer *peer)
{
	device_assert_held(dev);
	while (peer->staged_first)
		drop_oldest_staged(dev, peer, DROP_EGRESS_STAGED_EXPIRED);
}

/* The peer that a packet goes to, NULL none. split_begin() has validated its header. */
static inline struct peer *route(struct route_cache *c, const struct device *dev, const uint8_t *packet)
{
	const uint8_t version = inner_version(packet);
	const uint8_t *dst = inner_dst(packet);
	const size_t dst_len = version == 4 ? 4 : 16;

	if (version != c->version || memcmp(dst, c->dst, dst_len)) {
		c->peer = version == 4 ? allowed_ips_lookup4(&dev->allowed_ips, dst)
				       : allowed_ips_lookup6(&dev->allowed_ips, dst);
		c->version = version;
		memcpy(c->dst, dst, dst_len);
	}
	return c->peer;
}

/* The next packet is for peer: run is one to that peer from now on, under a session that may take it. */
static inline void run_to(struct peer_run *run, struct device *dev, struct peer *peer)
{
	if (peer != run->peer) {
		run_end(run, dev);
		*run = (struct peer_run){.peer = peer, .keypair = device_send_keypair(dev, peer)};
	} else if (run->keypair && unlikely(run->keypair->send_counter >= REKEY_AFTER_MESSAGES)) {
		run->keypair = device_send_keypair(dev, peer);
	}
}

static inline void run_end(const struct peer_run *run, struct device *dev)
{
	if (run->wire_bytes)
		device_sent(dev, run->peer, run->wire_bytes, true);
}

static void unreachable(struct egress *e, const uint8_t *packet, uint32_t len)
{
	uint8_t reply[UNREACHABLE_BYTES_MAX];
	struct device *dev = e->dev;

	e->icmp_credit_ns = MIN(ICMP_BURST_NS, e->icmp_credit_ns + (dev->now_ns - e->icmp_refilled_ns));
	e->icmp_refilled_ns = dev->now_ns;
	if (e->icmp_credit_ns < ICMP_INTERVAL_NS)
		return;
	const unsigned reply_len = inner_unreachable(packet, len, reply, sizeof(reply));
	if (!reply_len)
		return;
	e->icmp_credit_ns -= ICMP_INTERVAL_NS;
	counter_add(&dev->egress_counters.unreachables_sent, 1);
	e->inject(e->inject_arg, reply, reply_len);
}

/* Keeps a copy until there is a session, because the train must go back to its reader. Where there are too
 * many the oldest are dropped. */
static void stage(struct device *dev, struct peer *peer, const uint8_t *data, const struct train_packet *p,
	unsigned segments)
{
	struct staged_packet *s = NULL;

	while (peer->staged_first && peer->staged_segments + segments > STAGED_SEGMENTS_MAX)
		drop_oldest_staged(dev, peer, DROP_EGRESS_STAGED_OVERFLOW);
	if (dev->staged_bytes + p->len <= STAGED_BYTES_MAX)
		s = aligned_alloc(CACHE_LINE, ALIGN_UP(sizeof(*s) + p->len + TRAIN_GAP, (size_t)CACHE_LINE));
	if (!s) {
		drop(dev->drops, DROP_EGRESS_STAGED_OVERFLOW, segments);
		return;
	}
	s->next = NULL;
	s->segments = segments;
	s->packet = *p;
	memcpy(s->data, data, p->len);
	if (peer->staged_last)
		peer->staged_last->next = s;
	else
		peer->staged_first = s;
	peer->staged_last = s;
	peer->staged_segments += segments;
	dev->staged_bytes += p->len;
	counter_add(&dev->egress_counters.staged, segments);
}

/* Takes the oldest staged packet, of which there is one. The caller frees it. */
static struct staged_packet *unstage(struct device *dev, struct peer *peer)
{
	struct staged_packet *s = peer->staged_first;

	peer->staged_first = s->next;
	if (!s->next)
		peer->staged_last = NULL;
	peer->staged_segments -= s->segments;
	dev->staged_bytes -= s->packet.len;
	return s;
}

static void drop_oldest_staged(struct device *dev, struct peer *peer, enum drop_reason why)
{
	struct staged_packet *s = unstage(dev, peer);

	drop(dev->drops, why, s->segments);
	free(s);
}

/* Seals all segments of split to peer. Returns the bytes put on the wire. */
static uint64_t seal(
	struct device *dev, struct peer *peer, struct keypair *k, struct split *split, uint8_t tos)
{
	struct seal_run run = {
		.source.next = seal_next,
		.dev = dev,
		.peer = peer,
		.keypair = k,
		.split = split,
		.tos = tos,
	};
	const unsigned nr = dev->aead->seal_train(dev->aead, k->send_key, k->send_counter, &run.source);

	if (unlikely(nr < split->nr))
		drop(dev->drops, DROP_EGRESS_STOPPING, split->nr - nr);
	counter_add(&dev->egress_counters.segments, nr);
	counter_add(&dev->egress_counters.bytes, run.wire_bytes);
	return run.wire_bytes;
}

static bool seal_next(struct aead_seal_source *source, struct aead_seal_seg *seg)
{
	struct seal_run *run = CONTAINER_OF(source, struct seal_run, source);
	struct split_segment segment;

	if (!split_next(run->split, &segment))
		return false;
	const uint32_t datagram_len = WIRE_DATA_OVERHEAD + segment.padded_len;
	uint8_t *slot = gso_queue_slot(run->dev->queue, &run->peer->endpoint, run->tos, datagram_len);
	if (unlikely(!slot))
		return false;
	wire_data_header(slot, run->keypair->remote_index, run->keypair->send_counter++);
	run->wire_bytes += datagram_len;
	seg->dst = slot + WIRE_DATA_HEADER_BYTES;
	seg->src = segment.data;
	seg->len = segment.padded_len;
	return true;
}

static bool empty_next(struct aead_seal_source *source, struct aead_seal_seg *seg)
{
	struct empty_run *run = CONTAINER_OF(source, struct empty_run, source);

	if (!run->dst)
		return false;
	*seg = (struct aead_seal_seg){.dst = run->dst, .src = run->dst};
	run->dst = NULL;
	return true;
}
