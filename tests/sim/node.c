#include "tests/sim/node.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core/protocol/handshake.h"
#include "crypto/secret.h"
#include "tun/checksum.h"

#define BATCHES 256
#define RX_BATCHES 4
#define VIEWS 16
#define NOTES 4096
#define TUN_PACKETS 65536

/* Also with NDEBUG. */
#define require(condition)                                                                                   \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                      \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

static void deliver(void *arg, struct udp_batch *batch);
static struct udp_batch *no_batch(void *arg);
static void inject(void *arg, uint8_t *packet, uint32_t len);

struct node *node_new(const char *address)
{
	struct node *n = aligned_alloc(CACHE_LINE, sizeof(*n));
	struct spsc_tx views_tx;
	struct mpsc_tx notes_tx;
	int err = 0;

	require(n);
	memset(n, 0, sizeof(*n));
	n->sent_tail = &n->sent;
	require(!endpoint_parse(&n->address, address));
	require(!device_init(&n->dev, 1, NODE_MTU));
	n->aead = aead_find("libsodium")->create(&err);
	n->open_aead = aead_find("libsodium")->create(&err);
	require(n->aead && n->open_aead);
	require(!pool_init(&n->batches, BATCHES, sizeof(struct udp_batch), NULL));
	require(!pool_init(&n->rx_batches, RX_BATCHES, sizeof(struct udp_rx_batch), NULL));
	require(!pool_init(&n->views, VIEWS, sizeof(struct ingress_view), NULL));
	require(!pool_init(&n->handshakes, HANDSHAKE_QUEUE_SLOTS, sizeof(struct handshake_message), NULL));
	require(!pool_init(&n->trains, 1, sizeof(struct train), NULL));
	gso_queue_init(&n->queue, &n->batches, deliver, no_batch, n);
	require(!spsc_init(&n->views_ring, CHANNEL_SLOTS, NULL, &views_tx, &n->views_rx));
	require(!spsc_init(
		&n->handshakes_ring, HANDSHAKE_QUEUE_SLOTS, NULL, &n->dispatch.to_state, &n->handshakes_rx));
	require(!mpsc_init(&n->notes_ring, NOTES, NULL, &notes_tx, &n->notes_rx));
	require(!tun_mem_new(&n->tun, 0, 0, TUN_PACKETS, NULL, NULL));

	n->dev.aead = n->aead;
	n->dev.queue = &n->queue;
	n->dev.drops = &n->drops;
	device_set_time(&n->dev, NODE_EPOCH_NS, NODE_REALTIME_NS + NODE_EPOCH_NS);
	egress_init(&n->egress, &n->dev, inject, n);
	n->dispatch.dev = &n->dev;
	n->dispatch.drops = &n->dispatch_drops;
	n->dispatch.views = &n->views;
	n->dispatch.handshakes = &n->handshakes;
	n->dispatch.to_tun_tx[0] = views_tx;
	require(!ingress_init(
		&n->ingress, &n->dev, 0, &n->ingress_drops, n->open_aead, tun_mem_queue(n->tun), notes_tx));
	return n;
}

void node_free(struct node *n)
{
	struct datagram *d;

	if (!n)
		return;
	device_down(&n->dev);
	node_settle(n);
	require(!pool_in_use(&n->batches) && !pool_in_use(&n->rx_batches) && !pool_in_use(&n->views));
	require(!pool_in_use(&n->handshakes) && !pool_in_use(&n->trains));
	require(n->dev.staged_bytes == 0);
	device_done(&n->dev);
	while ((d = node_take(n)))
		free(d);
	ingress_done(&n->ingress);
	tun_mem_free(n->tun);
	channel_done(&n->views_ring);
	channel_done(&n->handshakes_ring);
	channel_done(&n->notes_ring);
	pool_done(&n->batches);
	pool_done(&n->rx_batches);
	pool_done(&n->views);
	pool_done(&n->handshakes);
	pool_done(&n->trains);
	aead_free(n->aead);
	aead_free(n->open_aead);
	free(n);
}

uint64_t node_run(struct node *n, uint64_t now_ns)
{
	device_set_time(&n->dev, now_ns, NODE_REALTIME_NS + now_ns + n->realtime_offset_ns);
	node_settle(n);
	const uint64_t deadline_ns = timers_run(&n->dev, UINT_MAX);
	gso_queue_flush(&n->queue);
	return deadline_ns;
}

void node_tun_packet(struct node *n, const void *packet, uint32_t len)
{
	node_tun_super(n, &(struct train_packet){.len = len}, packet);
}

void node_tun_super(struct node *n, const struct train_packet *meta, const void *packet)
{
	struct train *train = pool_get(&n->trains);
	struct tun_queue *queue = tun_mem_queue(n->tun);

	require(train);
	train_reset(train);
	require(!tun_mem_push(n->tun, meta, packet));
	require(queue->ops->recv_many(queue, train) == 1);
	egress_train(&n->egress, train);
	pool_put(train);
	node_settle(n);
}

void node_receive(struct node *n, const struct datagram *d)
{
	node_queue(n, d);
	node_handle_handshakes(n);
}

void node_queue(struct node *n, const struct datagram *d)
{
	node_dispatch(n, d);
	node_open(n);
	node_settle(n);
}

void node_dispatch(struct node *n, const struct datagram *d)
{
	struct udp_rx_batch *batch = pool_get(&n->rx_batches);

	require(batch && d->len && d->len <= UDP_RX_MSG_BYTES);
	atomic_init(&batch->refs, 1);
	batch->nr = 1;
	batch->msg[0] = (struct udp_rx_msg){
		.from = d->from,
		.ecn = d->tos & 3,
		.segment_len = (uint16_t)d->len,
		.len = d->len,
		.data = batch->data[0],
	};
	/* As a socket does: the local address becomes the pin. */
	batch->msg[0].from.from.v4 = n->address.to.v4.sin_addr;
	memcpy(batch->data[0], d->data, d->len);
	dispatch_batch(&n->dispatch, batch);
	udp_rx_batch_put(batch);
}

void node_open(struct node *n)
{
	struct ingress_view *view;

	while ((view = spsc_pop(n->views_rx))) {
		ingress_open(&n->ingress, view, n->dev.now_ns);
		ingress_view_put(view);
	}
}

void node_handle_handshakes(struct node *n)
{
	struct handshake_message *msg;

	while ((msg = spsc_pop(n->handshakes_rx))) {
		handshake_receive(&n->dev, msg, channel_len(n->handshakes_rx.ch));
		pool_put(msg);
	}
	node_settle(n);
}

void node_settle(struct node *n)
{
	void *note;

	while ((note = mpsc_pop(n->notes_rx)))
		device_note(&n->dev, note);
	gso_queue_flush(&n->queue);
	rcu_quiescent_state();
}

struct datagram *node_take(struct node *n)
{
	struct datagram *d = n->sent;

	if (!d)
		return NULL;
	n->sent = d->next;
	if (!n->sent)
		n->sent_tail = &n->sent;
	d->next = NULL;
	return d;
}

enum wire_type datagram_type(const struct datagram *d)
{
	return wire_classify(d->data, d->len);
}

struct datagram *datagram_copy(const struct datagram *d)
{
	struct datagram *copy = malloc(sizeof(*copy) + d->len);

	require(copy);
	memcpy(copy, d, sizeof(*d) + d->len);
	copy->next = NULL;
	return copy;
}

uint64_t node_drops(const struct node *n, enum drop_reason why)
{
	return counter_read(&n->drops.by_reason[why]) + counter_read(&n->ingress_drops.by_reason[why]) +
	       counter_read(&n->dispatch_drops.by_reason[why]);
}

struct peer *node_add_peer(struct node *n, const uint8_t public_key[NOISE_KEY_BYTES], const char *endpoint,
	const char *allowed_ip)
{
	struct peer *peer = peer_new(public_key, NULL);
	struct endpoint e;

	require(peer);
	device_add_peer(&n->dev, peer);
	if (*endpoint) {
		require(!endpoint_parse(&e, endpoint));
		device_set_endpoint(&n->dev, peer, &e);
	}
	if (allowed_ip)
		node_allow(n, peer, allowed_ip);
	return peer;
}

void node_allow(struct node *n, struct peer *peer, const char *text)
{
	const struct ip_prefix prefix = prefix_of(text);
	struct allowed_ips_spare spare;

	require(!allowed_ips_spare_alloc(&spare));
	allowed_ips_insert(&n->dev.allowed_ips, &prefix, peer, &spare);
	allowed_ips_spare_free(&spare);
}

struct ip_prefix prefix_of(const char *text)
{
	struct ip_prefix prefix = {.family = strchr(text, ':') ? AF_INET6 : AF_INET};
	char address[INET6_ADDRSTRLEN];
	const char *slash = strchr(text, '/');

	require(slash);
	snprintf(address, sizeof(address), "%.*s", (int)(slash - text), text);
	require(inet_pton(prefix.family, address, prefix.addr) == 1);
	prefix.cidr = (uint8_t)atoi(slash + 1);
	return prefix;
}

void node_pair(struct node *a, struct node *b, const char *a_endpoint, const char *b_endpoint)
{
	node_set_random_key(a);
	node_set_random_key(b);
	node_add_peer(a, b->dev.identity.public_key, b_endpoint, "10.0.0.2/32");
	node_add_peer(b, a->dev.identity.public_key, a_endpoint, "10.0.0.1/32");
	device_up(&a->dev);
	device_up(&b->dev);
	node_settle(a);
	node_settle(b);
}

void node_set_random_key(struct node *n)
{
	uint8_t private_key[NOISE_KEY_BYTES];

	randombytes_buf(private_key, sizeof(private_key));
	device_set_private_key(&n->dev, private_key);
	node_settle(n);
}

struct peer *node_peer(struct node *n)
{
	return cds_list_entry(n->dev.peers.next, struct peer, link);
}

uint32_t packet_make(uint8_t *out, const char *src, const char *dst, uint64_t id, uint32_t len)
{
	require(len >= 28);
	memset(out, 0, len);
	out[0] = 0x45;
	store_be16(out + 2, (uint16_t)len);
	out[8] = 64;
	out[9] = IPPROTO_UDP;
	require(inet_pton(AF_INET, src, out + 12) == 1);
	require(inet_pton(AF_INET, dst, out + 16) == 1);
	store_be16(out + 20, 1000);
	store_be16(out + 22, 2000);
	store_be16(out + 24, (uint16_t)(len - 20));
	if (len >= 36)
		store_be64(out + 28, id);
	for (uint32_t i = 36; i < len; i++)
		out[i] = (uint8_t)(id + i);
	/* The UDP checksum stays 0: none. */
	uint32_t sum = 0;
	for (unsigned i = 0; i < 20; i += 2)
		sum += load_be16(out + i);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	store_be16(out + 10, (uint16_t)~sum);
	return len;
}

uint64_t packet_id(const uint8_t *packet)
{
	return load_be64(packet + 28);
}

/* The other side of the socket: datagrams of the batch, in order. */
static void deliver(void *arg, struct udp_batch *batch)
{
	struct node *n = arg;
	uint32_t len;

	for (uint32_t at = 0; at < batch->len; at += len) {
		len = MIN(batch->segment_len, batch->len - at);
		struct datagram *d = malloc(sizeof(*d) + len);

		require(d);
		*d = (struct datagram){
			.from = n->address, .to = batch->endpoint, .tos = batch->tos, .len = len};
		memcpy(d->data, batch->data + at, len);
		*n->sent_tail = d;
		n->sent_tail = &d->next;
	}
	pool_put(batch);
}

static struct udp_batch *no_batch(void *arg)
{
	struct node *n = arg;

	/* deliver() gives batches back at once, so a flush always frees some. */
	return pool_get(&n->batches);
}

static void inject(void *arg, uint8_t *packet, uint32_t len)
{
	struct node *n = arg;

	n->injected++;
}

/* ---- random numbers: splitmix64 ---- */

static uint64_t random_state;

uint64_t random_u64(void)
{
	uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t random_below(uint64_t below)
{
	return random_u64() % below;
}

static const char *random_name(void)
{
	return "seeded";
}

static uint32_t random_u32(void)
{
	return (uint32_t)random_u64();
}

static void random_buf(void *const buf, const size_t size)
{
	uint8_t *out = buf;

	for (size_t i = 0; i < size; i++)
		out[i] = (uint8_t)random_u64();
}

void random_seed_all(uint64_t seed)
{
	static struct randombytes_implementation implementation = {
		.implementation_name = random_name,
		.random = random_u32,
		.buf = random_buf,
	};

	random_state = seed;
	require(!randombytes_set_implementation(&implementation));
}

uint64_t seed_choose(const char *variable)
{
	const char *text = getenv(variable);
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	const uint64_t seed =
		text ? strtoull(text, NULL, 0) : (uint64_t)now.tv_nsec * 2654435761u ^ (uint64_t)now.tv_sec;
	printf("%s=%" PRIu64 "\n", variable, seed);
	fflush(stdout);
	return seed;
}
