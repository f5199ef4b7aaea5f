#include "core/protocol/egress.h"

#include <errno.h>
#include <stdlib.h>

#include "crypto/wire.h"
#include "tun/inner.h"

/* Unreachables: a hundred a second with bursts of fifty, enough for every interactive sender and no amplifier
 * for a scanner. */
#define ICMP_INTERVAL_NS (10 * NS_PER_MS)
#define ICMP_BURST_NS (50 * ICMP_INTERVAL_NS)
#define UNREACHABLE_BYTES_MAX 1280
/* The longest IP packet that, padded and sealed, is a datagram: an MTU can be set beyond it. */
#define SEGMENT_BYTES_MAX ((GSO_DATAGRAM_MAX - WIRE_DATA_OVERHEAD) & ~15u)

struct staged_packet {
	struct staged_packet *next;
	unsigned segments;
	struct train_packet packet; /* offset is unused: the bytes are data[] */
	CACHE_ALIGNED uint8_t data[];
};

/* The segments of one packet on their way into the slots of the GSO queue; next() is called by the cipher. */
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

static struct peer *route(const struct device *dev, const uint8_t *packet, uint32_t len);
static void unreachable(struct egress *e, const uint8_t *packet, uint32_t len);
static void stage(struct device *dev, struct peer *peer, const uint8_t *data, const struct train_packet *p,
	unsigned segments);
static void drop_staged(struct device *dev, struct peer *peer, struct staged_packet *s, enum drop_reason why);
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
	/* The run of packets to one peer that is being sealed: one session check and one timer update each.
	 */
	struct peer *run_peer = NULL;
	struct keypair *run_keypair = NULL;
	uint64_t run_bytes = 0;
	uint8_t routed_dst[16];
	uint8_t routed_version = 0;
	struct peer *routed = NULL;
	const uint64_t segments = counter_read(&dev->egress_counters.segments);

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

		const uint8_t version = inner_version(data);
		const uint8_t *dst = inner_dst(data);
		const size_t dst_len = version == 4 ? 4 : 16;
		if (version != routed_version || memcmp(dst, routed_dst, dst_len)) {
			routed = route(dev, data, p->len);
			routed_version = version;
			memcpy(routed_dst, dst, dst_len);
		}
		struct peer *peer = routed;
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

		if (peer != run_peer) {
			if (run_bytes)
				device_sent(dev, run_peer, run_bytes, true);
			run_bytes = 0;
			run_peer = peer;
			run_keypair = device_send_keypair(dev, peer);
		} else if (run_keypair && unlikely(run_keypair->send_counter >= REKEY_AFTER_MESSAGES)) {
			run_keypair = device_send_keypair(dev, peer);
		}
		if (unlikely(!run_keypair)) {
			stage(dev, peer, data, p, e->split.nr);
			continue;
		}
		run_bytes += seal(dev, peer, run_keypair, &e->split, inner_ecn_encapsulate(data));
	}
	if (run_bytes)
		device_sent(dev, run_peer, run_bytes, true);
	histogram_add(&dev->egress_counters.train_segments,
		(uint32_t)(counter_read(&dev->egress_counters.segments) - segments));
}

void egress_keepalive(struct device *dev, struct peer *peer)
{
	if (!dev->up || !endpoint_is_set(&peer->endpoint))
		return;
	/* What waits in the queue says that we are alive, too, and must not be overtaken. */
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
	if (!peer->staged_first || !dev->up || !endpoint_is_set(&peer->endpoint))
		return false;

	const uint32_t mtu = atomic_load_explicit(&dev->mtu, memory_order_relaxed);
	uint64_t bytes = 0;
	struct keypair *k = device_send_keypair(dev, peer);
	while (k && peer->staged_first) {
		struct staged_packet *s = peer->staged_first;
		struct split split;

		/* It was well-formed when it was staged; sealing changes headers, so this is its only use. */
		if (!split_begin(&split, s->data, &s->packet, mtu))
			bytes += seal(dev, peer, k, &split, inner_ecn_encapsulate(s->data));
		drop_staged(dev, peer, s, DROP_REASON_COUNT);
		if (unlikely(k->send_counter >= REKEY_AFTER_MESSAGES))
			k = device_send_keypair(dev, peer);
	}
	if (bytes)
		device_sent(dev, peer, bytes, true);
	return bytes != 0;
}

void egress_purge_staged(struct device *dev, struct peer *peer)
{
	while (peer->staged_first)
		drop_staged(dev, peer, peer->staged_first, DROP_EGRESS_STAGED_EXPIRED);
}

/* split_begin() has validated the header. */
static struct peer *route(const struct device *dev, const uint8_t *packet, uint32_t len)
{
	if (inner_version(packet) == 4)
		return allowed_ips_lookup4(&dev->allowed_ips, inner_dst(packet));
	return allowed_ips_lookup6(&dev->allowed_ips, inner_dst(packet));
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

/* Keeps a copy until there is a session: the train itself must go back to its reader. Oldest go first when it
 * is too much. */
static void stage(struct device *dev, struct peer *peer, const uint8_t *data, const struct train_packet *p,
	unsigned segments)
{
	struct staged_packet *s = NULL;

	while (peer->staged_first && peer->staged_segments + segments > STAGED_PACKETS_MAX)
		drop_staged(dev, peer, peer->staged_first, DROP_EGRESS_STAGED_OVERFLOW);
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

/* Unlinks and frees the oldest staged packet; counts it unless why is DROP_REASON_COUNT (it was sent). */
static void drop_staged(struct device *dev, struct peer *peer, struct staged_packet *s, enum drop_reason why)
{
	assert(s == peer->staged_first);
	peer->staged_first = s->next;
	if (!s->next)
		peer->staged_last = NULL;
	peer->staged_segments -= s->segments;
	dev->staged_bytes -= s->packet.len;
	if (why != DROP_REASON_COUNT)
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
