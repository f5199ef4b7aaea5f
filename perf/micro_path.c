/*
 * The two paths as wholes, on the device of the simulation: a train from TUN to the batches for udp-tx, and a
 * received batch to the frames for TUN. With each cipher, and with none ("null" copies), which leaves what is
 * our own.
 *
 * Each peer's one session has the same key in both directions and answers to its own index, so what the
 * egress path makes is what the ingress path takes: each checks the other.
 */
#include "perf/micro.h"

#include <linux/virtio_net.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/protocol/dispatch.h"
#include "core/protocol/egress.h"
#include "core/protocol/ingress.h"
#include "tests/sim/node.h"
#include "tests/unit/tun/packets.h"

#define PEERS_MAX 64
#define SUPER_PAYLOAD 64000u
#define SUPER_SEGMENT 1368u
#define OUT_BYTES (2 * TRAIN_BYTES)
#define RECEIVED_MAX 4 /* batches: messages for every peer */

struct load {
	const char *name;
	unsigned peers; /* packets go to them in turn */
	unsigned nr;    /* packets in the train */
	bool super, udp;
	uint32_t payload_len;
	bool with_ciphers; /* measured with each, not only without */
};

static const struct load loads[] = {
	{"tso-64k", .peers = 1, .nr = 1, .super = true, .payload_len = SUPER_PAYLOAD, .with_ciphers = true},
	{"plain-1420", .peers = 1, .nr = 45, .payload_len = SUPER_SEGMENT},
	{"udp-64", .peers = 1, .nr = 256, .udp = true, .payload_len = 64, .with_ciphers = true},
	{"udp-64-64-peers", .peers = 64, .nr = 256, .udp = true, .payload_len = 64},
	{"tcp-acks", .peers = 1, .nr = 64},
};

struct kind {
	const struct load *load;
	const struct aead_backend *backend; /* NULL: none */
};

struct path {
	const struct load *load;
	struct node *node;
	struct aead *aead;
	struct train *train, *original;
	struct keypair *keys[PEERS_MAX];
	unsigned segments; /* that the train makes */
	/* egress: what was delivered, kept only for the other path */
	unsigned datagrams;
	bool keep;
	/* ingress: what is received, and the same as it was before it was opened in place */
	struct udp_rx_batch *received[RECEIVED_MAX], *sealed[RECEIVED_MAX];
	unsigned nr_received;
	struct ingress_view *view[RECEIVED_MAX];
	struct tun_queue queue;
	bool checking;
	uint32_t written; /* while checking: bytes of packets in out */
	uint8_t *out, *expected;
	uint8_t payload[SUPER_PAYLOAD];
};

/* ---- the null cipher ---- */

static unsigned null_seal(struct aead *aead, const uint8_t key[AEAD_KEY_BYTES], uint64_t counter,
	struct aead_seal_source *source)
{
	struct aead_seal_seg seg;
	unsigned nr = 0;

	for (; source->next(source, &seg); nr++) {
		memcpy(seg.dst, seg.src, seg.len);
		memset(seg.dst + seg.len, 0, AEAD_TAG_BYTES);
	}
	return nr;
}

static unsigned null_open(
	struct aead *aead, const uint8_t key[AEAD_KEY_BYTES], struct aead_open_seg *segs, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		segs[i].ok = true;
	return nr;
}

static void null_free(struct aead *aead)
{
	free(aead);
}

static struct aead *null_new(int *err)
{
	struct aead *aead = calloc(1, sizeof(*aead));

	micro_require(aead);
	*aead = (struct aead){.seal_train = null_seal, .open_train = null_open, .free = null_free};
	return aead;
}

/* ---- both ends of it ---- */

static void deliver(void *arg, struct udp_batch *batch)
{
	struct path *p = arg;

	p->datagrams += batch->nr;
	if (unlikely(p->keep)) {
		/* As a receiver with GRO gets it, from the peer that it was for. */
		if (!p->nr_received || p->received[p->nr_received - 1]->nr == UDP_RX_MSGS)
			p->nr_received++;
		micro_require(p->nr_received <= RECEIVED_MAX);
		struct udp_rx_batch *to = p->received[p->nr_received - 1];
		const unsigned m = to->nr++;
		to->msg[m] = (struct udp_rx_msg){
			.from = batch->endpoint,
			.ecn = batch->tos & 3,
			.segment_len = batch->segment_len,
			.len = batch->len,
			.data = to->data[m],
		};
		memcpy(to->data[m], batch->data, batch->len);
		memcpy(p->sealed[p->nr_received - 1]->data[m], batch->data, batch->len);
	}
	pool_put(batch);
}

static struct udp_batch *no_batch(void *arg)
{
	return NULL;
}

static int null_send(struct tun_queue *queue, struct tun_frame *frame)
{
	struct path *p = CONTAINER_OF(queue, struct path, queue);

	if (unlikely(p->checking)) {
		const struct train_packet fields = {.len = frame->len,
			.flags = frame->flags,
			.gso_type = frame->gso_type,
			.gso_size = frame->gso_size,
			.csum_start = frame->csum_start,
			.csum_offset = frame->csum_offset};
		static uint8_t whole[TRAIN_BYTES];
		struct split_segment seg;
		struct split split;
		uint32_t at = 0;

		for (uint32_t i = 1; i < frame->nr_iov; i++) {
			memcpy(whole + at, frame->iov[i].iov_base, frame->iov[i].iov_len);
			at += (uint32_t)frame->iov[i].iov_len;
		}
		micro_require(at == frame->len && !split_begin(&split, whole, &fields, 0));
		while (split_next(&split, &seg)) {
			micro_require(p->written + seg.len <= OUT_BYTES);
			memcpy(p->out + p->written, seg.data, seg.len);
			p->written += seg.len;
		}
	}
	return 0;
}

static bool null_send_ready(struct tun_queue *queue)
{
	return true;
}

static const struct tun_queue_ops null_ops = {.send = null_send, .send_ready = null_send_ready};

/* ---- set-up ---- */

static void add_peer(struct path *p, unsigned i)
{
	uint8_t public_key[NOISE_KEY_BYTES];
	char endpoint[ENDPOINT_STRLEN], prefix[ENDPOINT_STRLEN];
	struct device *dev = &p->node->dev;

	randombytes_buf(public_key, sizeof(public_key));
	snprintf(endpoint, sizeof(endpoint), "192.0.2.%u:51820", 10 + i);
	snprintf(prefix, sizeof(prefix), "10.0.%u.0/24", i);
	struct peer *peer = node_add_peer(p->node, public_key, endpoint, prefix);
	struct session *session = session_table_add(&dev->sessions, peer, peer->owner);
	struct keypair *k = keypair_new();
	micro_require(session && k);
	randombytes_buf(k->send_key, sizeof(k->send_key));
	memcpy(k->receive_key, k->send_key, sizeof(k->send_key));
	k->local_index = k->remote_index = session->index;
	k->created_ns = dev->now_ns;
	k->initiator = true;
	atomic_init(&k->confirmed, true);
	replay_init(&k->replay);
	session_table_set_keypair(session, k);
	peer_add_session(dev, peer, session);
	p->keys[i] = k;
}

/* Inside each peer's network, so that the packet is allowed to leave by it and to come in from it. */
static struct packet_spec packet_of(const struct load *load, unsigned i)
{
	const uint8_t network = (uint8_t)(i % load->peers);

	return (struct packet_spec){
		.udp = load->udp,
		.src = {10, 0, network, 2},
		.dst = {10, 0, network, 3},
		.ttl = 64,
		.df = true,
		.id = (uint16_t)(i / load->peers),
		.sport = 40000,
		.dport = 5201,
		.seq = 1000 + i * load->payload_len,
		.ack = 2000,
		.window = 512,
		.flags = 0x10,
		.options_len = load->udp ? 0 : 12,
		.options = {1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8},
	};
}

static void fill_train(struct path *p)
{
	const struct load *load = p->load;
	struct train *t = p->original;

	randombytes_buf(p->payload, sizeof(p->payload));
	for (unsigned i = 0; i < load->nr; i++) {
		const struct packet_spec spec = packet_of(load, i);
		struct train_packet *tp = &t->packet[t->nr++];

		*tp = (struct train_packet){
			.offset = t->used,
			.len = packet_build(
				&spec, p->payload, load->payload_len, load->super, t->data + t->used),
			.flags = load->super ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0,
			.gso_type = load->super ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_NONE,
			.gso_size = load->super ? SUPER_SEGMENT : 0,
			.csum_start = (uint16_t)packet_l4_offset(&spec),
			.csum_offset = 16,
		};
		t->used = ALIGN_UP(t->used + tp->len + TRAIN_GAP, 16u);
		micro_require(t->used <= TRAIN_BYTES);
	}
}

static void *setup(const struct stage *s, const char **why)
{
	const struct kind *kind = s->kind;
	int err;
	struct aead *aead = kind->backend ? kind->backend->create(&err) : null_new(&err);

	if (!aead) {
		*why = "the cipher is not to be had on this CPU or with this library";
		return NULL;
	}
	struct path *p = micro_alloc(sizeof(*p));
	p->load = kind->load;
	p->segments = s->units;
	p->aead = aead;
	p->train = micro_alloc(sizeof(*p->train));
	p->original = micro_alloc(sizeof(*p->original));
	p->out = micro_alloc(OUT_BYTES);
	p->expected = micro_alloc(OUT_BYTES);
	for (unsigned i = 0; i < RECEIVED_MAX; i++) {
		p->received[i] = micro_alloc(sizeof(*p->received[i]));
		p->sealed[i] = micro_alloc(sizeof(*p->sealed[i]));
		/* So many that it never goes back to a pool: it is from none. */
		atomic_init(&p->received[i]->refs, 1u << 20);
	}
	p->node = node_new("192.0.2.1:51820");
	p->node->dev.aead = aead;
	p->node->ingress.aead = aead;
	gso_queue_init(&p->node->queue, &p->node->batches, deliver, no_batch, p);
	p->queue.ops = &null_ops;
	atomic_init(&p->queue.offloads, TUN_CAN_TSO | TUN_CAN_USO);
	p->node->ingress.queue = &p->queue;
	node_set_random_key(p->node);
	device_up(&p->node->dev);
	for (unsigned i = 0; i < p->load->peers; i++)
		add_peer(p, i);
	fill_train(p);
	return p;
}

static void put_views(struct path *p)
{
	for (unsigned i = 0; i < p->nr_received; i++) {
		if (p->view[i])
			ingress_view_put(p->view[i]);
		p->view[i] = NULL;
	}
}

static void done(void *ctx)
{
	struct path *p = ctx;

	put_views(p);
	node_free(p->node);
	aead_free(p->aead);
	for (unsigned i = 0; i < RECEIVED_MAX; i++) {
		free(p->received[i]);
		free(p->sealed[i]);
	}
	free(p->train);
	free(p->original);
	free(p->out);
	free(p->expected);
	free(p);
}

/* ---- the stages ---- */

static void prepare_egress(void *ctx)
{
	struct path *p = ctx;

	memcpy(p->train, p->original, offsetof(struct train, data) + p->original->used);
}

static unsigned turn_egress(void *ctx)
{
	struct path *p = ctx;

	p->datagrams = 0;
	egress_train(&p->node->egress, p->train);
	gso_queue_flush(&p->node->queue);
	return p->datagrams;
}

static void prepare_dispatch(void *ctx)
{
	put_views(ctx);
}

static unsigned turn_dispatch(void *ctx)
{
	struct path *p = ctx;
	unsigned nr = 0;

	for (unsigned i = 0; i < p->nr_received; i++) {
		p->node->dispatch.nr_sent = 0;
		dispatch_batch(&p->node->dispatch, p->received[i]);
		p->view[i] = spsc_pop(p->node->views_rx);
		nr += p->view[i] ? p->view[i]->nr : 0;
	}
	return nr;
}

/* As it was received: opening is in place, and a counter is accepted once. */
static void prepare_ingress(void *ctx)
{
	struct path *p = ctx;

	for (unsigned i = 0; i < p->nr_received; i++)
		for (unsigned m = 0; m < p->received[i]->nr; m++)
			memcpy(p->received[i]->data[m], p->sealed[i]->data[m], p->received[i]->msg[m].len);
	for (unsigned i = 0; i < p->load->peers; i++)
		replay_init(&p->keys[i]->replay);
}

static unsigned turn_ingress(void *ctx)
{
	struct path *p = ctx;
	struct ingress *in = &p->node->ingress;
	const uint64_t before = counter_read(&in->counters.packets);

	for (unsigned i = 0; i < p->nr_received; i++)
		ingress_open(in, p->view[i], p->node->dev.now_ns);
	return (unsigned)(counter_read(&in->counters.packets) - before);
}

/* The packets that must come out, made the naive way: the peers' batches follow each other, each in order. */
static uint32_t expect(struct path *p)
{
	const struct load *load = p->load;
	uint32_t len = 0;

	for (unsigned peer = 0; peer < load->peers; peer++) {
		for (unsigned i = peer; i < load->nr; i += load->peers) {
			const struct packet_spec spec = packet_of(load, i);

			for (unsigned s = 0; load->super && s < p->segments; s++)
				len += packet_segment(&spec, p->payload, load->payload_len, SUPER_SEGMENT, s,
					p->expected + len);
			if (!load->super)
				len += packet_build(
					&spec, p->payload, load->payload_len, false, p->expected + len);
			micro_require(len <= OUT_BYTES - 2 * NODE_MTU);
		}
	}
	return len;
}

/* Through both paths; what the TUN at the far end is given is what the near one gave, packet by packet, and
 * only once. */
static void check(void *ctx)
{
	struct path *p = ctx;

	prepare_egress(p);
	p->keep = true;
	micro_require(turn_egress(p) == p->segments);
	p->keep = false;
	/* A null cipher leaves the plaintext to be seen, a real one none of it. */
	const bool seen =
		!memcmp(p->received[0]->data[0] + WIRE_DATA_HEADER_BYTES + 12, p->original->data + 12, 8);
	micro_require(seen == (p->aead->seal_train == null_seal));

	micro_require(turn_dispatch(p) == p->segments);
	p->checking = true;
	micro_require(turn_ingress(p) == p->segments);
	p->checking = false;
	const uint32_t len = expect(p);
	micro_require(p->written == len && !memcmp(p->out, p->expected, len));

	for (unsigned i = 0; i < p->nr_received; i++)
		for (unsigned m = 0; m < p->received[i]->nr; m++)
			memcpy(p->received[i]->data[m], p->sealed[i]->data[m], p->received[i]->msg[m].len);
	micro_require(turn_ingress(p) == 0);
	micro_require(counter_read(&p->node->ingress_drops.by_reason[DROP_INGRESS_REPLAY]) == p->segments);
}

void micro_path_stages(void)
{
	static const struct stage_ops egress = {setup, check, prepare_egress, turn_egress, done};
	static const struct stage_ops dispatch = {setup, check, prepare_dispatch, turn_dispatch, done};
	static const struct stage_ops ingress = {setup, check, prepare_ingress, turn_ingress, done};
	static struct kind kinds[ARRAY_LEN(loads)][AEAD_BACKENDS_MAX + 1];
	static const struct {
		const char *name;
		const struct stage_ops *ops;
	} paths[] = {{"egress", &egress}, {"ingress", &ingress}};
	struct stage s = {.unit = "packet", .hot = true};

	for (unsigned i = 0; i < ARRAY_LEN(paths) + 1; i++) {
		for (unsigned l = 0; l < ARRAY_LEN(loads); l++) {
			const struct load *load = &loads[l];

			s.units = load->super ? (load->payload_len + SUPER_SEGMENT - 1) / SUPER_SEGMENT
					      : load->nr;
			s.kind = &kinds[l][0];
			kinds[l][0] = (struct kind){.load = load};
			s.ops = i < ARRAY_LEN(paths) ? paths[i].ops : &dispatch;
			micro_add(&s, "%s/%s/null", i < ARRAY_LEN(paths) ? paths[i].name : "dispatch",
				load->name);
			for (unsigned b = 0; i < ARRAY_LEN(paths) && load->with_ciphers && aead_backends[b];
				b++) {
				kinds[l][b + 1] = (struct kind){.load = load, .backend = aead_backends[b]};
				s.kind = &kinds[l][b + 1];
				micro_add(&s, "%s/%s/%s", paths[i].name, load->name, aead_backends[b]->name);
			}
		}
	}
}
