/*
 * A whole device without threads, on a clock that the test moves: the real device, egress, ingress, pools,
 * channels and GSO queue, an in-memory TUN, and instead of a socket a list of the datagrams that it sends.
 * The simulation and the unit tests of core use it.
 */
#pragma once

#include "core/protocol/dispatch.h"
#include "core/protocol/egress.h"
#include "core/protocol/ingress.h"
#include "tun/tun_mem.h"

#define NODE_EPOCH_NS (NS_PER_SEC * 1000)                    /* boottime at which tests begin */
#define NODE_REALTIME_NS (NS_PER_SEC * UINT64_C(1760000000)) /* realtime at boottime 0 */
#define NODE_MTU 1420

/* A datagram on its way. */
struct datagram {
	struct datagram *next;
	struct endpoint from, to; /* from is what the receiver sees as source */
	uint8_t tos;
	uint32_t len;
	uint8_t data[];
};

struct node {
	CACHE_ALIGNED struct device dev;
	struct drops drops, ingress_drops, dispatch_drops;
	struct aead *aead, *open_aead;
	struct pool batches, rx_batches, views, handshakes, trains;
	struct gso_queue queue;
	struct egress egress;
	struct dispatch dispatch;
	struct ingress ingress;
	struct channel views_ring, handshakes_ring, notes_ring;
	struct spsc_rx views_rx, handshakes_rx;
	struct mpsc_rx notes_rx;
	struct tun_mem *tun;
	struct endpoint address; /* own: the source of what it sends */
	uint64_t realtime_offset_ns;
	struct datagram *sent, **sent_tail; /* not yet taken, oldest first */
	unsigned injected;                  /* ICMP messages given back to the local sender */
};

/* secret_init() must have been called and the thread be a QSBR reader. Dies on errors. address:
 * "192.0.2.1:51820". */
struct node *node_new(const char *address);
/* Fails an assertion when a buffer is still in use. */
void node_free(struct node *node);

/* The clock: sets the time of the next events and runs what is due. Returns the next deadline of the node. */
uint64_t node_run(struct node *node, uint64_t now_ns);
/* A packet from the local TUN. */
void node_tun_packet(struct node *node, const void *packet, uint32_t len);
/* The same with the fields of its vnet header: a super-packet. */
void node_tun_super(struct node *node, const struct train_packet *meta, const void *packet);
/* A datagram from the network, all the way through udp-rx, tun-tx and state. */
void node_receive(struct node *node, const struct datagram *datagram);
/* The same, but handshake messages wait in the queue for node_handle_handshakes(). */
void node_queue(struct node *node, const struct datagram *datagram);
/* The two steps of that one by one, without what the state thread does afterwards: udp-rx's, and tun-tx's. */
void node_dispatch(struct node *node, const struct datagram *datagram);
void node_open(struct node *node);
/* Handles all that wait; the backlog is what it would be in the state thread. */
void node_handle_handshakes(struct node *node);
/* Handles all notes, flushes the queue, announces a quiescent state. The functions above end with it. */
void node_settle(struct node *node);

/* The oldest datagram sent and not yet taken; NULL none. free() it. */
struct datagram *node_take(struct node *node);
/* The type of a datagram. */
enum wire_type datagram_type(const struct datagram *d);
struct datagram *datagram_copy(const struct datagram *d);

/* Packets dropped for this reason, by any thread of the node. */
uint64_t node_drops(const struct node *node, enum drop_reason why);

/* A peer with that public key and endpoint ("": none), and one allowed IP ("10.0.0.2/32"; NULL: none). */
struct peer *node_add_peer(struct node *node, const uint8_t public_key[NOISE_KEY_BYTES], const char *endpoint,
	const char *allowed_ip);
void node_allow(struct node *node, struct peer *peer, const char *text);
struct ip_prefix prefix_of(const char *text);

/* Makes both nodes peers of each other, with allowed IPs 10.0.0.1/32 for a and 10.0.0.2/32 for b, and brings
 * them up. */
void node_pair(struct node *a, struct node *b, const char *a_endpoint, const char *b_endpoint);
/* A fresh random private key for the node. */
void node_set_random_key(struct node *node);
/* The one peer of a node of a pair. */
struct peer *node_peer(struct node *node);

/* An IPv4 UDP packet of total length len (28 or more) whose payload begins with id (when there is room).
 * Returns len. */
uint32_t packet_make(uint8_t *out, const char *src, const char *dst, uint64_t id, uint32_t len);
/* The id in a packet made by packet_make() of at least 36 bytes. */
uint64_t packet_id(const uint8_t *packet);

/* Random numbers that depend on nothing but the seed: for the test and, through libsodium, for the code under
 * test. Before secret_init(). */
void random_seed_all(uint64_t seed);
uint64_t random_u64(void);
/* 0 .. below - 1 */
uint64_t random_below(uint64_t below);
/* From the environment variable, else from the clock; printed. */
uint64_t seed_choose(const char *variable);
