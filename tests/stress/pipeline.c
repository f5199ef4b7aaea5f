/*
 * Two whole pipelines in one process, over in-memory TUN queues and loopback sockets, under traffic both
 * ways, while everything that can be reconfigured is, and a stranger sends junk. In a build with thread
 * sanitizer it finds what the threads share without order, with address sanitizer what outlives its owner.
 *
 * What must hold at all times: no flow is reordered and no byte changed. Loss is allowed, since peers come
 * and go. After each storm of changes: every flow moves again (nothing sleeps for good), and once the traffic
 * ends, every buffer is back in its pool. Every second round ends under traffic instead, for the sake of the
 * stopping.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <netinet/udp.h>
#include <sodium.h>
#include <time.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/threads/pipeline.h"
#include "crypto/secret.h"
#include "tests/stress/stress.h"
#include "tun/checksum.h"
#include "tun/inner.h"
#include "tun/transport.h"
#include "tun/tun_mem.h"

#define QUEUES 2
#define FLOWS (2 * QUEUES) /* of each node: one TCP and one UDP flow a queue */
#define GHOSTS 4           /* peers that nobody answers for */
#define MTU 1420
#define FIRST_PORT 1000
#define TUN_CAPACITY 64
#define PATTERN_PERIOD 65536u
#define REORDER_MAX (1u << 30) /* bytes of a flow on their way at most */
#define SETTLE_S 30
#define ROUNDS 4

struct flow {
	counter_t arrived; /* frames' pieces */
	counter_t next;    /* the least number (UDP), the stream offset (TCP) that may come next */
};

struct node {
	struct node *other;
	uint8_t number; /* 1, 2: the last byte of its address */
	uint8_t private_key[NOISE_KEY_BYTES], public_key[NOISE_KEY_BYTES];
	struct tun_mem *tun[QUEUES];
	struct tun_queue *queues[QUEUES];
	struct pipeline *pipeline;
	struct metrics *metrics;
	struct udp_sockets *sockets;
	uint8_t ghost_key[GHOSTS][NOISE_KEY_BYTES];
	_Atomic uint16_t port;  /* for the stranger */
	_Atomic uint32_t index; /* of a session, for the same */
	struct flow flow[FLOWS];
};

struct feeder {
	struct node *node;
	unsigned queue;
	uint64_t seed;
	pthread_t thread;
};

/* A change on its way to the state thread, with all that it needs. */
struct change {
	struct node *node;
	uint8_t public_key[NOISE_KEY_BYTES];
	struct peer *peer;
	struct endpoint endpoint;
	struct ip_prefix prefix;
	struct allowed_ips_spare spare;
	uint16_t keepalive_s;
	uint32_t index;
};

static struct node nodes[2];
static uint8_t pattern[2 * PATTERN_PERIOD];
static _Atomic bool feeding, bothering;

#ifdef SANITIZE_THREAD
/*
 * liburcu of Debian 12 tells the sanitizer nothing. These take the place of its functions of the same names
 * and say what a grace period orders: every reader's last look, and whatever was left to call_rcu(), before
 * the callbacks.
 */
static char grace_period;

#define REAL(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

void urcu_qsbr_quiescent_state(void)
{
	TSAN_RELEASE(&grace_period);
	REAL(urcu_qsbr_quiescent_state)();
}

void urcu_qsbr_thread_offline(void)
{
	TSAN_RELEASE(&grace_period);
	REAL(urcu_qsbr_thread_offline)();
}

void urcu_qsbr_unregister_thread(void)
{
	TSAN_RELEASE(&grace_period);
	REAL(urcu_qsbr_unregister_thread)();
}

void urcu_qsbr_call_rcu(struct rcu_head *head, void (*fn)(struct rcu_head *head))
{
	TSAN_RELEASE(&grace_period);
	REAL(urcu_qsbr_call_rcu)(head, fn);
}

/* Called by the thread that runs the callbacks. */
void urcu_qsbr_synchronize_rcu(void)
{
	REAL(urcu_qsbr_synchronize_rcu)();
	TSAN_ACQUIRE(&grace_period);
}
#endif

/* ---- traffic ---- */

static void pause_ms(uint64_t ms)
{
	nanosleep(&(struct timespec){.tv_nsec = (long)(ms * NS_PER_MS)}, NULL);
}

/* The fields of an IPv4 packet with its TCP or UDP header; the payload is there already. Returns what TUN
 * adds. */
static struct train_packet finish_packet(uint8_t *ip, bool tcp, uint8_t from, uint16_t port,
	uint32_t payload_len, uint32_t gso_size, uint32_t seq)
{
	const uint32_t header_len = INNER_IPV4_HEADER + (tcp ? TCP_HEADER : UDP_HEADER);
	const uint32_t len = header_len + payload_len;
	const uint16_t l4_len = (uint16_t)(len - INNER_IPV4_HEADER);
	uint8_t *l4 = ip + INNER_IPV4_HEADER;
	struct train_packet meta = {
		.len = len,
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.csum_start = INNER_IPV4_HEADER,
		.csum_offset = tcp ? TCP_CHECK : UDP_CHECK,
	};

	memset(ip, 0, header_len);
	ip[0] = 0x45;
	ip[1] = tcp ? ECN_ECT0 : ECN_NOT_ECT;
	store_be16(ip + 2, (uint16_t)len);
	ip[6] = 0x40;
	ip[8] = 64;
	ip[9] = tcp ? IPPROTO_TCP : IPPROTO_UDP;
	store_be32(ip + 12, 0x0a000000u | from);
	store_be32(ip + 16, 0x0a000000u | (3u - from));
	checksum_store(ip + 10, checksum_add_words(0, ip, INNER_IPV4_HEADER));
	store_be16(l4, port);
	store_be16(l4 + 2, 9);
	if (tcp) {
		store_be32(l4 + TCP_SEQ, seq);
		l4[12] = TCP_HEADER / 4 << 4;
		l4[TCP_FLAGS] = TCP_ACK;
	} else {
		store_be16(l4 + UDP_LEN, l4_len);
	}
	if (payload_len > gso_size) {
		meta.gso_type = tcp ? VIRTIO_NET_HDR_GSO_TCPV4 : TUN_GSO_UDP_L4;
		meta.gso_size = (uint16_t)gso_size;
	}
	const uint16_t pseudo = checksum_fold(checksum_add_be16(inner_pseudo_sum(ip, ip[9]), l4_len));
	memcpy(l4 + meta.csum_offset, &pseudo, sizeof(pseudo));
	return meta;
}

static uint32_t fill_tcp(uint8_t *payload, uint64_t *offset, uint32_t len)
{
	const uint32_t seq = (uint32_t)*offset;

	memcpy(payload, pattern + seq % PATTERN_PERIOD, len);
	*offset += len;
	return seq;
}

/* Each datagram starts with its number. */
static void fill_udp(uint8_t *payload, uint64_t *number, uint32_t len, uint32_t gso_size)
{
	for (uint32_t at = 0; at < len; at += gso_size) {
		const uint32_t piece = MIN(gso_size, len - at);

		store_be64(payload + at, *number);
		memcpy(payload + at + 8, pattern + *number % PATTERN_PERIOD, piece - 8);
		++*number;
	}
}

static void push(struct feeder *f, const struct train_packet *meta, const uint8_t *ip)
{
	while (atomic_load_explicit(&feeding, memory_order_relaxed)) {
		const int err = tun_mem_push(f->node->tun[f->queue], meta, ip);

		if (!err)
			return;
		REQUIRE(err == -EAGAIN, "push: %s", strerror(-err));
		nanosleep(&(struct timespec){.tv_nsec = 200 * 1000}, NULL);
	}
}

static void *feed(void *arg)
{
	struct feeder *f = arg;
	uint64_t offset = 0, number = 0;
	static _Thread_local uint8_t ip[65536];

	while (atomic_load_explicit(&feeding, memory_order_relaxed)) {
		const uint64_t r = stress_random(&f->seed);
		const bool tcp = r & 1, is_super = r & 2, to_ghost = (r >> 2) % 64 == 0;
		const uint32_t gso_size = 100 + (uint32_t)((r >> 8) % 1280);
		const uint32_t segments = is_super ? 2 + (uint32_t)((r >> 20) % 40) : 1;
		const uint32_t tail = 8 + (uint32_t)((r >> 32) % (gso_size - 8));
		const uint32_t len = (segments - 1) * gso_size + tail;
		const uint16_t port = (uint16_t)(FIRST_PORT + 2 * f->queue + tcp);
		uint32_t seq = 0;

		if (tcp)
			seq = fill_tcp(ip + INNER_IPV4_HEADER + TCP_HEADER, &offset, len);
		else
			fill_udp(ip + INNER_IPV4_HEADER + UDP_HEADER, &number, len, gso_size);
		struct train_packet meta = finish_packet(ip, tcp, f->node->number, port, len, gso_size, seq);
		push(f, &meta, ip);
		/* Bursts that fill every queue on the way, and yet no 4 GB in the time that it takes to
		 * settle. */
		if ((r >> 48) % 16 == 0)
			pause_ms(1);
		if (to_ghost) {
			store_be32(ip + 16, 0x0a090000u | (uint32_t)(r >> 40) % GHOSTS);
			checksum_store(ip + 10, 0);
			push(f, &meta, ip);
		}
	}
	return NULL;
}

static void check_checksum(const struct train_packet *meta, const uint8_t *ip)
{
	const uint32_t l4_len = meta->len - INNER_IPV4_HEADER;
	const uint64_t pseudo = checksum_add_be16(inner_pseudo_sum(ip, ip[9]), (uint16_t)l4_len);
	uint16_t field;

	REQUIRE(checksum_fold(checksum_add_words(0, ip, INNER_IPV4_HEADER)) == 0xffff, "IPv4 checksum");
	memcpy(&field, ip + INNER_IPV4_HEADER + (ip[9] == IPPROTO_TCP ? TCP_CHECK : UDP_CHECK),
		sizeof(field));
	if (meta->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		REQUIRE(field == checksum_fold(pseudo), "partial checksum");
	else
		REQUIRE(checksum_fold(checksum_add(pseudo, ip + INNER_IPV4_HEADER, l4_len)) == 0xffff,
			"checksum");
}

static void check_tcp(struct flow *f, const uint8_t *payload, uint32_t len, uint32_t seq)
{
	const uint32_t next = (uint32_t)counter_read(&f->next);

	/* Forward by any distance that can be lost, but not back by any that buffers could hold. */
	REQUIRE(seq == next || next - seq > REORDER_MAX, "TCP data of offset %u after that of %u", seq, next);
	REQUIRE(!memcmp(payload, pattern + seq % PATTERN_PERIOD, len), "TCP data of offset %u changed", seq);
	atomic_store_explicit(&f->next, seq + len, memory_order_relaxed);
	counter_add(&f->arrived, 1);
}

static void check_udp(struct flow *f, const uint8_t *payload, uint32_t len)
{
	const uint64_t number = load_be64(payload);

	REQUIRE(number >= counter_read(&f->next), "datagram %llu after %llu", (unsigned long long)number,
		(unsigned long long)counter_read(&f->next) - 1);
	REQUIRE(!memcmp(payload + 8, pattern + number % PATTERN_PERIOD, len - 8), "datagram %llu changed",
		(unsigned long long)number);
	atomic_store_explicit(&f->next, number + 1, memory_order_relaxed);
	counter_add(&f->arrived, 1);
}

/* What comes out of a node's pipeline. One thread at a time for each flow. */
static void arrive(void *arg, const struct train_packet *meta, const uint8_t *ip)
{
	struct node *node = arg;
	const bool tcp = ip[9] == IPPROTO_TCP;
	const uint8_t *l4 = ip + INNER_IPV4_HEADER;
	uint32_t ip_len;

	REQUIRE(!inner_check(ip, meta->len, &ip_len) && ip_len == meta->len, "a frame of %u bytes",
		meta->len);
	if (ip[9] == IPPROTO_ICMP)
		return;
	REQUIRE(load_be32(ip + 12) == (0x0a000000u | node->other->number), "source");
	REQUIRE(load_be32(ip + 16) == (0x0a000000u | node->number), "destination");
	check_checksum(meta, ip);

	const uint32_t header_len = INNER_IPV4_HEADER + (tcp ? TCP_HEADER : UDP_HEADER);
	const uint32_t len = meta->len - header_len;
	const unsigned i = load_be16(l4) - FIRST_PORT;
	REQUIRE(i < FLOWS && (i & 1) == tcp, "port");
	if (tcp) {
		check_tcp(&node->flow[i], ip + header_len, len, load_be32(l4 + TCP_SEQ));
		return;
	}
	const uint32_t step = meta->gso_type == VIRTIO_NET_HDR_GSO_NONE ? len : meta->gso_size;
	for (uint32_t at = 0; at < len; at += step)
		check_udp(&node->flow[i], ip + header_len + at, MIN(step, len - at));
}

/* ---- the stranger ---- */

static void send_run(
	int fd, const struct sockaddr_in *to, const uint8_t *data, size_t len, uint16_t segment_len)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(segment_len))] = {0};
	struct iovec iov = {(void *)data, len};
	struct msghdr msg = {
		.msg_name = (void *)to, .msg_namelen = sizeof(*to), .msg_iov = &iov, .msg_iovlen = 1};

	if (segment_len) {
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = IPPROTO_UDP;
		c->cmsg_type = UDP_SEGMENT;
		c->cmsg_len = CMSG_LEN(sizeof(segment_len));
		memcpy(CMSG_DATA(c), &segment_len, sizeof(segment_len));
	}
	IGNORE_RESULT("a stranger gets no promise", sendmsg(fd, &msg, MSG_DONTWAIT));
}

/* Datagrams of every length and type, alone and as runs, to indices that exist and that do not. */
static void *bother(void *arg)
{
	static const uint16_t exact[] = {148, 92, 64, 32};
	const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint8_t data[2048];
	uint64_t seed = 0x5eed;

	REQUIRE(fd >= 0, "socket: %s", strerror(errno));
	while (atomic_load_explicit(&bothering, memory_order_relaxed)) {
		const uint64_t r = stress_random(&seed);
		struct node *node = &nodes[r & 1];
		const struct sockaddr_in to = {
			.sin_family = AF_INET,
			.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
			.sin_port = htons(atomic_load_explicit(&node->port, memory_order_relaxed)),
		};
		const unsigned type = 1 + (r >> 1) % 4;
		const uint16_t segment_len = r & 8 ? exact[type - 1] : (uint16_t)(1 + (r >> 8) % 160);
		const size_t len =
			r & 16 ? segment_len : MIN(segment_len * (2 + (r >> 20) % 12), sizeof(data));

		randombytes_buf(data, len);
		for (size_t at = 0; at + 8 <= len; at += segment_len) {
			store_le32(data + at, type);
			store_le32(data + at + 4,
				r & 32 ? atomic_load_explicit(&node->index, memory_order_relaxed) : 7);
		}
		send_run(fd, &to, data, len, len > segment_len ? segment_len : 0);
		nanosleep(&(struct timespec){.tv_nsec = 300 * 1000}, NULL);
	}
	close(fd);
	return NULL;
}

/* ---- changes ---- */

static struct endpoint loopback(uint16_t port)
{
	struct endpoint e = {0};

	e.to.v4.sin_family = AF_INET;
	e.to.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	e.to.v4.sin_port = htons(port);
	return e;
}

static void apply_add(struct device *dev, void *arg)
{
	struct change *c = arg;

	device_add_peer(dev, c->peer);
	device_set_endpoint(dev, c->peer, &c->endpoint);
	device_set_persistent_keepalive(dev, c->peer, c->keepalive_s);
	allowed_ips_insert(&dev->allowed_ips, &c->prefix, c->peer, &c->spare);
}

static void apply_remove(struct device *dev, void *arg)
{
	struct change *c = arg;
	struct peer *peer = device_find_peer(dev, c->public_key);

	if (peer)
		device_remove_peer(dev, peer);
}

static void apply_allowed_ip(struct device *dev, void *arg)
{
	struct change *c = arg;
	struct peer *peer = device_find_peer(dev, c->public_key);

	if (peer)
		allowed_ips_insert(&dev->allowed_ips, &c->prefix, peer, &c->spare);
}

static void apply_endpoint(struct device *dev, void *arg)
{
	struct change *c = arg;
	struct peer *peer = device_find_peer(dev, c->public_key);

	if (peer)
		device_set_endpoint(dev, peer, &c->endpoint);
}

static void apply_private_key(struct device *dev, void *arg)
{
	struct change *c = arg;

	device_set_private_key(dev, c->node->private_key);
}

static void apply_up(struct device *dev, void *arg)
{
	device_up(dev);
}

static void apply_down(struct device *dev, void *arg)
{
	device_down(dev);
}

static void apply_look(struct device *dev, void *arg)
{
	struct change *c = arg;
	const struct peer *peer = device_find_peer(dev, c->public_key);

	if (peer && peer->current)
		c->index = peer->current->index;
}

static struct ip_prefix address(uint32_t addr)
{
	struct ip_prefix prefix = {.family = AF_INET, .cidr = 32};

	store_be32(prefix.addr, addr);
	return prefix;
}

static void add_peer(struct node *node, const uint8_t key[NOISE_KEY_BYTES], uint32_t addr, uint16_t port)
{
	struct change c = {.prefix = address(addr), .endpoint = loopback(port), .keepalive_s = 1};

	c.peer = peer_new(key, NULL);
	REQUIRE(c.peer && !allowed_ips_spare_alloc(&c.spare), "no memory");
	pipeline_call(node->pipeline, apply_add, &c);
	allowed_ips_spare_free(&c.spare);
}

static void remove_peer(struct node *node, const uint8_t key[NOISE_KEY_BYTES])
{
	struct change c = {0};

	memcpy(c.public_key, key, sizeof(c.public_key));
	pipeline_call(node->pipeline, apply_remove, &c);
}

static void route_to(struct node *node, const uint8_t key[NOISE_KEY_BYTES], uint32_t addr)
{
	struct change c = {.prefix = address(addr)};

	memcpy(c.public_key, key, sizeof(c.public_key));
	REQUIRE(!allowed_ips_spare_alloc(&c.spare), "no memory");
	pipeline_call(node->pipeline, apply_allowed_ip, &c);
	allowed_ips_spare_free(&c.spare);
}

static void add_partner(struct node *node)
{
	add_peer(
		node, node->other->public_key, 0x0a000000u | node->other->number, node->other->sockets->port);
}

static void tell_port(struct node *node)
{
	struct change c = {.endpoint = loopback(node->sockets->port)};

	memcpy(c.public_key, node->public_key, sizeof(c.public_key));
	pipeline_call(node->other->pipeline, apply_endpoint, &c);
}

static void look_for_index(struct node *node)
{
	struct change c = {0};

	memcpy(c.public_key, node->other->public_key, sizeof(c.public_key));
	pipeline_call(node->pipeline, apply_look, &c);
	atomic_store_explicit(&node->index, c.index, memory_order_relaxed);
}

static void new_key(struct node *node)
{
	randombytes_buf(node->private_key, sizeof(node->private_key));
	crypto_scalarmult_base(node->public_key, node->private_key);
}

static void set_key(struct node *node)
{
	pipeline_call(node->pipeline, apply_private_key, &(struct change){.node = node});
}

static void new_sockets(struct node *node)
{
	struct udp_sockets *old = node->sockets;
	const int err = udp_sockets_open(&node->sockets, 0, 0);

	REQUIRE(!err, "sockets: %s", strerror(-err));
	pipeline_set_sockets(node->pipeline, node->sockets);
	udp_sockets_put(old);
	atomic_store_explicit(&node->port, node->sockets->port, memory_order_relaxed);
}

static void count_one(void *sum, const char *group, const char *name, uint64_t value)
{
	*(uint64_t *)sum += value;
}

static void change_something(struct node *node, uint64_t *seed)
{
	const uint64_t r = stress_random(seed);
	const uint8_t *ghost = node->ghost_key[(r >> 16) % GHOSTS];
	const uint32_t other_addr = 0x0a000000u | node->other->number;
	struct tun_mem *tun = node->tun[(r >> 24) % QUEUES];

	switch (r % 10) {
	case 0:
		pipeline_set_mtu(node->pipeline, 576 + (uint32_t)(r >> 32) % 1000);
		break;
	case 1: /* the other end notices by itself, or is told */
		new_sockets(node);
		if (r & 256)
			tell_port(node);
		break;
	case 2:
		pipeline_set_sockets(node->pipeline, NULL);
		pipeline_set_sockets(node->pipeline, node->sockets);
		break;
	case 3:
		remove_peer(node, node->other->public_key);
		if (r & 256)
			pause_ms(5);
		add_partner(node);
		break;
	case 4:
		remove_peer(node, ghost);
		add_peer(node, ghost, 0x0a090000u | (uint32_t)(r >> 16) % GHOSTS, 9);
		break;
	case 5:
		pipeline_call(node->pipeline, apply_down, NULL);
		if (r & 256)
			pause_ms(5);
		pipeline_call(node->pipeline, apply_up, NULL);
		break;
	case 6: /* the partner's address goes to a ghost, if it is there, and comes back */
		route_to(node, ghost, other_addr);
		pause_ms(2);
		route_to(node, node->other->public_key, other_addr);
		break;
	case 7:
		remove_peer(node->other, node->public_key);
		new_key(node);
		set_key(node);
		add_partner(node->other);
		break;
	case 8:
		tun_mem_fail_send(tun, r & 256 ? -EAGAIN : -ENETDOWN);
		pause_ms(2);
		tun_mem_fail_send(tun, 0);
		break;
	default:
		look_for_index(node);
		metrics_each(node->metrics, count_one, &(uint64_t){0});
		break;
	}
	/* A ghost is no more than a few changes old, so that each can come again. */
	if (r % 10 != 4)
		remove_peer(node, node->ghost_key[(r >> 40) % GHOSTS]);
}

/* ---- a round ---- */

static void start_node(struct node *node, const struct aead_backend *aead)
{
	for (unsigned q = 0; q < QUEUES; q++) {
		REQUIRE(!tun_mem_new(&node->tun[q], q, TUN_CAN_TSO | TUN_CAN_USO, TUN_CAPACITY, arrive, node),
			"TUN");
		node->queues[q] = tun_mem_queue(node->tun[q]);
	}
	memset(node->flow, 0, sizeof(node->flow));
	REQUIRE(!metrics_new(&node->metrics), "no memory");
	const int err = pipeline_start(&node->pipeline, &(struct pipeline_config){
								.tun_threads = QUEUES,
								.aead = aead,
								.mtu = MTU,
								.queues = node->queues,
								.metrics = node->metrics,
							});
	REQUIRE(!err, "start: %s", strerror(-err));
	new_sockets(node);
	set_key(node);
}

static void stop_node(struct node *node)
{
	pipeline_stop(node->pipeline);
	metrics_free(node->metrics);
	udp_sockets_put(node->sockets);
	node->sockets = NULL;
}

static uint64_t total_arrived(void)
{
	uint64_t total = 0;

	for (unsigned n = 0; n < ARRAY_LEN(nodes); n++)
		for (unsigned i = 0; i < FLOWS; i++)
			total += counter_read(&nodes[n].flow[i].arrived);
	return total;
}

/* Every flow of both directions moves again. */
static void settle(void)
{
	const uint64_t began_ns = park_clock_ns();

	for (unsigned n = 0; n < ARRAY_LEN(nodes); n++) {
		for (unsigned i = 0; i < FLOWS; i++) {
			const struct flow *f = &nodes[n].flow[i];
			const uint64_t before = counter_read(&f->arrived);

			while (counter_read(&f->arrived) < before + 20) {
				REQUIRE(park_clock_ns() - began_ns < SETTLE_S * NS_PER_SEC,
					"flow %u to node %u stands still after %llu", i, n + 1,
					(unsigned long long)before);
				pause_ms(5);
			}
		}
	}
}

/* Buffers in use beyond the one that each reader holds while it sleeps. */
static unsigned buffers_missing(const struct node *node)
{
	return pipeline_buffers_in_use(node->pipeline) - (QUEUES + 1);
}

static void await_buffers(const struct node *node)
{
	const uint64_t began_ns = park_clock_ns();
	unsigned missing;

	while ((missing = buffers_missing(node)) != 0) {
		REQUIRE(park_clock_ns() - began_ns < SETTLE_S * NS_PER_SEC,
			"node %u: %u buffers did not come back", node->number, missing);
		pause_ms(5);
	}
}

static void round_of(const struct aead_backend *aead, unsigned changes, bool stop_in_traffic, uint64_t *seed)
{
	struct feeder feeders[2 * QUEUES];
	const uint64_t began_ns = park_clock_ns();
	pthread_t stranger;

	for (unsigned n = 0; n < ARRAY_LEN(nodes); n++)
		start_node(&nodes[n], aead);
	for (unsigned n = 0; n < ARRAY_LEN(nodes); n++) {
		add_partner(&nodes[n]);
		pipeline_call(nodes[n].pipeline, apply_up, NULL);
	}
	atomic_store(&feeding, true);
	atomic_store(&bothering, true);
	stranger = stress_start(bother, NULL);
	for (unsigned i = 0; i < ARRAY_LEN(feeders); i++) {
		feeders[i] = (struct feeder){
			.node = &nodes[i / QUEUES], .queue = i % QUEUES, .seed = stress_random(seed)};
		feeders[i].thread = stress_start(feed, &feeders[i]);
	}

	for (unsigned i = 0; i < changes; i++) {
		change_something(&nodes[stress_random(seed) & 1], seed);
		pause_ms(stress_random(seed) % 40);
	}
	/* Who lost its session and an old friend's new port at once would need the fifteen seconds of the
	 * protocol. */
	for (unsigned n = 0; n < ARRAY_LEN(nodes); n++)
		tell_port(&nodes[n]);
	settle();

	atomic_store(&bothering, false);
	stress_join(stranger);
	if (stop_in_traffic)
		for (unsigned n = 0; n < ARRAY_LEN(nodes); n++)
			stop_node(&nodes[n]);
	atomic_store(&feeding, false);
	for (unsigned i = 0; i < ARRAY_LEN(feeders); i++)
		stress_join(feeders[i].thread);
	if (!stop_in_traffic) {
		for (unsigned n = 0; n < ARRAY_LEN(nodes); n++)
			await_buffers(&nodes[n]);
		for (unsigned n = 0; n < ARRAY_LEN(nodes); n++)
			stop_node(&nodes[n]);
	}
	printf("pipeline: %s: %u changes, %llu frames in order, stopped %s, %.1f s\n", aead->name, changes,
		(unsigned long long)total_arrived(),
		stop_in_traffic ? "in traffic" : "with every buffer back",
		(double)(park_clock_ns() - began_ns) / 1e9);
	for (unsigned n = 0; n < ARRAY_LEN(nodes); n++)
		for (unsigned q = 0; q < QUEUES; q++)
			tun_mem_free(nodes[n].tun[q]);
}

int main(void)
{
	const uint64_t changes = stress_rounds(100);
	const char *text = getenv("STRESS_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
	char error[LOG_ERROR_BYTES];
	const struct aead_backend *usable[AEAD_BACKENDS_MAX];
	unsigned nr_usable = 0;

	REQUIRE(!secret_init(), "libsodium");
	REQUIRE(!log_set_directives("error", error), "%s", error);
	printf("pipeline: STRESS_SEED=%llu\n", (unsigned long long)seed);
	seed = seed * 2 + 1; /* never 0 */
	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = i < PATTERN_PERIOD ? (uint8_t)stress_random(&seed) : pattern[i - PATTERN_PERIOD];
	for (unsigned n = 0; n < ARRAY_LEN(nodes); n++) {
		nodes[n].other = &nodes[!n];
		nodes[n].number = (uint8_t)(n + 1);
		new_key(&nodes[n]);
		for (unsigned g = 0; g < GHOSTS; g++)
			randombytes_buf(nodes[n].ghost_key[g], NOISE_KEY_BYTES);
	}
	for (unsigned i = 0; aead_backends[i]; i++) {
		int err;
		struct aead *probe = aead_backends[i]->create(&err);

		if (probe)
			usable[nr_usable++] = aead_backends[i];
		aead_free(probe);
	}
	for (unsigned round = 0; round < ROUNDS; round++)
		round_of(usable[round % nr_usable], (unsigned)changes, round & 1, &seed);
	return 0;
}
