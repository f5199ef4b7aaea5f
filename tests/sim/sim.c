/*
 * Simulation: a gateway and its clients, each a whole device without threads, on one fake clock and a wire
 * that loses, delays, reorders, doubles and damages. Chaos (restarts, roaming, new keys, outages, interfaces
 * going down, clocks set back) is followed by calm, in which everything must work again within the bounds of
 * the protocol, and by idleness, in which nobody may talk.
 *
 * Checked all the time: a packet comes out once at most, unchanged, where it belongs, and only from its
 * sender's allowed IPs; no session is used past REJECT_AFTER_TIME in either direction; initiations keep their
 * distance; keepalives are no more than the rules give. At the end no buffer and no secret is in use.
 *
 * SIM_SEED repeats a run, SIM_WORLDS and SIM_HOURS (of each world) change its length.
 */
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core/protocol/handshake.h"
#include "core/base/log.h"
#include "crypto/secret.h"
#include "tests/sim/node.h"

#define SECONDS(n) ((uint64_t)((n)*1e9))
#define CLIENTS_MAX 3
#define NODES_MAX (CLIENTS_MAX + 1)
#define GATEWAY 0
#define PACKET_BYTES_MAX 1400

/*
 * How long until all is well in calm: 15 s of silence until a dead session is noticed, jitter, the hold of 5
 * s, and a few more rounds in case both ends start at once.
 */
#define RECOVERY_NS SECONDS(15.4 + 5 * 5.34)
/* The latest that a datagram arrives. */
#define LATE_NS SECONDS(400)
/*
 * On a wire that is good again: what was late has arrived, and whatever that set off has been given up: the
 * 15 s, 18 attempts, and the keepalives after that.
 */
#define SILENCE_NS (LATE_NS + SECONDS(15.4 + 18 * 5.34 + 25))

/*
 * When an initiator's session is ready while an unconfirmed one waits as next, that takes the place of
 * previous and the session in use is retired at once (as in the kernel driver): what was on its way under it
 * is lost. So around a response a packet may be.
 */
#define OVERTAKING_NS SECONDS(0.05)

enum packet_fate {
	PACKET_UNDERWAY,
	PACKET_FORBIDDEN, /* must never come out */
	PACKET_DELIVERED,
	PACKET_OVERTAKEN, /* on its way while its session was retired */
};

struct packet {
	uint64_t sent_ns;
	uint32_t len;
	uint8_t from, to, from_host, to_host;
	uint8_t fate;
};

struct end {
	struct node *node;
	uint8_t private_key[NOISE_KEY_BYTES], public_key[NOISE_KEY_BYTES];
	uint8_t preshared[NOISE_KEY_BYTES]; /* of a client and the gateway */
	uint16_t persistent_keepalive_s;
	char address[ENDPOINT_STRLEN];
	uint64_t deadline_ns;
	/* of each peer */
	uint64_t last_initiation_ns[NODES_MAX];
	uint64_t last_response_ns[NODES_MAX]; /* in either direction */
	uint64_t keepalives_allowed_ns;       /* the count below began */
	unsigned keepalives;
};

struct delivery {
	uint64_t at_ns, order;
	struct datagram *datagram;
};

struct flow {
	unsigned from, to;
	uint64_t next_ns;
};

struct wire {
	unsigned loss, duplicates, damage; /* per mille */
	uint64_t delay_ns, delay_spread_ns;
};

struct world {
	uint64_t now_ns;
	unsigned nr_clients;
	struct end end[NODES_MAX];
	struct flow flow[2 * CLIENTS_MAX];
	struct wire wire;
	struct delivery *heap;
	size_t nr_heap, heap_capacity;
	uint64_t order;
	struct packet *packets;
	size_t nr_packets, packets_capacity;
	bool idle;               /* no local sender sends */
	bool calm;               /* they send once a second */
	uint64_t silent_from_ns; /* nobody may send from then on */
	uint64_t next_disturbance_ns;
	unsigned port;
};

static const struct wire good_wire = {.delay_ns = SECONDS(0.005), .delay_spread_ns = SECONDS(0.01)};

static struct {
	uint64_t packets, forbidden, delivered, overtaken, datagrams, lost, duplicated, damaged;
	uint64_t restarts, roams, keys, outages, downs, handshakes, sim_ns;
} total;

static uint64_t seed;

#define check(condition, ...)                                                                                \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "%s:%d: SIM_SEED=%" PRIu64 ": ", __FILE__, __LINE__, seed);          \
			fprintf(stderr, __VA_ARGS__);                                                        \
			fputc('\n', stderr);                                                                 \
			exit(1);                                                                             \
		}                                                                                            \
	} while (0)

static bool chance(unsigned per_mille)
{
	return random_below(1000) < per_mille;
}

/* ---- ends ---- */

static void set_address(struct world *w, unsigned i)
{
	snprintf(w->end[i].address, sizeof(w->end[i].address), "192.0.2.%u:%u", i + 1,
		i == GATEWAY ? 51820 : w->port++);
	if (w->end[i].node)
		check(!endpoint_parse(&w->end[i].node->address, w->end[i].address), "address");
}

static void new_key(struct world *w, unsigned i)
{
	struct end *e = &w->end[i];

	randombytes_buf(e->private_key, sizeof(e->private_key));
	crypto_scalarmult_base(e->public_key, e->private_key);
	memset(e->last_initiation_ns, 0, sizeof(e->last_initiation_ns));
}

static void add_peer(struct world *w, unsigned i, unsigned j, bool with_endpoint)
{
	struct end *e = &w->end[i];
	char prefix[32];
	struct peer *peer;

	/* A client routes everything to the gateway; the gateway knows each client's network. */
	snprintf(prefix, sizeof(prefix), "10.0.%u.0/24", j);
	peer = node_add_peer(e->node, w->end[j].public_key, with_endpoint ? w->end[j].address : "",
		i == GATEWAY ? prefix : "0.0.0.0/0");
	device_set_preshared(&e->node->dev, peer, w->end[i == GATEWAY ? j : i].preshared);
	if (i != GATEWAY)
		device_set_persistent_keepalive(&e->node->dev, peer, e->persistent_keepalive_s);
	e->last_initiation_ns[j] = 0;
}

static struct peer *peer_of(struct world *w, unsigned i, unsigned j)
{
	return device_find_peer(&w->end[i].node->dev, w->end[j].public_key);
}

static void start(struct world *w, unsigned i)
{
	struct end *e = &w->end[i];

	e->node = node_new(e->address);
	node_run(e->node, w->now_ns);
	device_set_private_key(&e->node->dev, e->private_key);
	if (i == GATEWAY) {
		for (unsigned j = 1; j <= w->nr_clients; j++)
			add_peer(w, i, j, chance(500));
	} else {
		add_peer(w, i, GATEWAY, true);
	}
	device_up(&e->node->dev);
	e->deadline_ns = w->now_ns;
	memset(e->last_initiation_ns, 0, sizeof(e->last_initiation_ns));
	e->keepalives = 0;
	e->keepalives_allowed_ns = w->now_ns;
}

static void count_handshakes(struct world *w, unsigned i)
{
	total.handshakes += counter_read(&w->end[i].node->dev.counters.handshakes_completed);
}

static void restart(struct world *w, unsigned i)
{
	count_handshakes(w, i);
	node_free(w->end[i].node);
	start(w, i);
	total.restarts++;
}

/* ---- wire ---- */

static bool earlier(const struct delivery *a, const struct delivery *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void schedule(struct world *w, uint64_t at_ns, struct datagram *d)
{
	if (w->nr_heap == w->heap_capacity) {
		w->heap_capacity = w->heap_capacity ? 2 * w->heap_capacity : 256;
		w->heap = realloc(w->heap, w->heap_capacity * sizeof(w->heap[0]));
		check(w->heap, "memory");
	}
	size_t i = w->nr_heap++;
	const struct delivery new = {.at_ns = at_ns, .order = w->order++, .datagram = d};
	for (; i && earlier(&new, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
		w->heap[i] = w->heap[(i - 1) / 2];
	w->heap[i] = new;
}

static struct datagram *next_delivery(struct world *w)
{
	struct datagram *d = w->heap[0].datagram;
	const struct delivery last = w->heap[--w->nr_heap];
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= w->nr_heap)
			break;
		if (child + 1 < w->nr_heap && earlier(&w->heap[child + 1], &w->heap[child]))
			child++;
		if (earlier(&last, &w->heap[child]))
			break;
		w->heap[i] = w->heap[child];
		i = child;
	}
	w->heap[i] = last;
	return d;
}

static void transmit(struct world *w, struct datagram *d)
{
	total.datagrams++;
	if (chance(w->wire.duplicates)) {
		total.duplicated++;
		/* Now and then very late: a replay. */
		schedule(w,
			w->now_ns + w->wire.delay_ns +
				random_below(chance(50) ? LATE_NS - SECONDS(1) : SECONDS(1)),
			datagram_copy(d));
	}
	if (chance(w->wire.loss)) {
		total.lost++;
		free(d);
		return;
	}
	if (chance(w->wire.damage)) {
		total.damaged++;
		if (chance(200))
			d->len = 1 + (uint32_t)random_below(d->len);
		else
			d->data[random_below(d->len)] ^= (uint8_t)(1 << random_below(8));
	}
	schedule(w, w->now_ns + w->wire.delay_ns + random_below(w->wire.delay_spread_ns + 1), d);
}

/* ---- what the ends do, watched ---- */

/* Packets on their way between these two may be overtaken; those sent in a moment, too: see send_packet(). */
static void note_response(struct world *w, unsigned i, const struct datagram *d)
{
	for (unsigned j = 0; j <= w->nr_clients; j++) {
		if (j == i || !endpoint_same_to(&w->end[j].node->address, &d->to))
			continue;
		w->end[i].last_response_ns[j] = w->end[j].last_response_ns[i] = w->now_ns;
		for (size_t id = w->nr_packets;
			id-- && w->packets[id].sent_ns + OVERTAKING_NS >= w->now_ns;) {
			struct packet *p = &w->packets[id];

			if (p->fate == PACKET_UNDERWAY && (p->from == i || p->from == j) &&
				(p->to == i || p->to == j))
				p->fate = PACKET_OVERTAKEN;
		}
	}
}

static void check_sent(struct world *w, unsigned i, const struct datagram *d)
{
	struct end *e = &w->end[i];
	unsigned j;

	check(w->now_ns < w->silent_from_ns, "end %u sends a datagram of type %d although all is idle", i,
		(int)datagram_type(d));
	switch (datagram_type(d)) {
	case WIRE_INITIATION:
		for (j = 0; j <= w->nr_clients; j++) {
			struct peer *peer = j == i ? NULL : peer_of(w, i, j);

			if (!peer || !peer->handshake_session ||
				peer->handshake_session->index !=
					load_le32(d->data + offsetof(struct wire_initiation, sender)))
				continue;
			check(!e->last_initiation_ns[j] ||
					w->now_ns - e->last_initiation_ns[j] >= REKEY_TIMEOUT_NS,
				"end %u sends initiations %f s apart", i,
				(double)(w->now_ns - e->last_initiation_ns[j]) / 1e9);
			e->last_initiation_ns[j] = w->now_ns;
		}
		break;
	case WIRE_DATA:
		for (j = 0; j <= w->nr_clients; j++) {
			struct peer *peer = j == i ? NULL : peer_of(w, i, j);

			if (!peer || !peer->current ||
				peer->current->keypair->remote_index !=
					load_le32(d->data + offsetof(struct wire_data, receiver)))
				continue;
			check(w->now_ns - peer->current->keypair->created_ns < REJECT_AFTER_TIME_NS,
				"end %u sends under a session of %f s", i,
				(double)(w->now_ns - peer->current->keypair->created_ns) / 1e9);
			e->keepalives += d->len == WIRE_DATA_OVERHEAD;
			break;
		}
		check(j <= w->nr_clients, "end %u sends data under a session that is not current", i);
		break;
	case WIRE_RESPONSE:
		note_response(w, i, d);
		break;
	case WIRE_COOKIE:
		break;
	default:
		check(false, "end %u sends what is no message", i);
	}
}

/*
 * Passive keepalives come at most every 10 s for each peer, persistent ones at their interval, and each
 * session may begin with one.
 */
static void check_keepalives(struct world *w, unsigned i)
{
	struct end *e = &w->end[i];
	const double seconds = (double)(w->now_ns - e->keepalives_allowed_ns) / 1e9;
	const unsigned peers = i == GATEWAY ? w->nr_clients : 1;
	const double each = 1 + seconds / 10 + seconds / 5 +
			    (e->persistent_keepalive_s ? seconds / e->persistent_keepalive_s : 0);

	check(e->keepalives <= peers * (each + 2), "end %u sent %u keepalives in %f s", i, e->keepalives,
		seconds);
}

static void check_delivered(struct world *w, unsigned i, const struct tun_mem_packet *out)
{
	uint8_t expected[PACKET_BYTES_MAX];
	char src[32], dst[32];

	check(out->meta.len >= 36, "end %u delivers %u bytes", i, out->meta.len);
	const uint64_t id = packet_id(out->data);
	check(id < w->nr_packets, "end %u delivers a packet that nobody sent", i);
	struct packet *p = &w->packets[id];
	check(p->fate != PACKET_FORBIDDEN, "end %u delivers a packet from outside its sender's allowed IPs",
		i);
	check(p->fate != PACKET_DELIVERED, "end %u delivers a packet twice", i);
	check(p->to == i, "end %u delivers a packet for end %u", i, p->to);
	snprintf(src, sizeof(src), "10.0.%u.%u", p->from, p->from_host);
	snprintf(dst, sizeof(dst), "10.0.%u.%u", p->to, p->to_host);
	packet_make(expected, src, dst, id, p->len);
	check(out->meta.len == p->len && !memcmp(expected, out->data, p->len),
		"end %u delivers a changed packet", i);
	p->fate = PACKET_DELIVERED;
	total.delivered++;
}

/* After each event at end i: what came out of it, and when it wants to be called again. */
static unsigned settle(struct world *w, unsigned i)
{
	struct end *e = &w->end[i];
	struct tun_mem_packet *packet;
	struct datagram *d;
	unsigned delivered = 0;

	e->deadline_ns = node_run(e->node, w->now_ns);
	while ((d = node_take(e->node))) {
		check_sent(w, i, d);
		transmit(w, d);
	}
	while ((packet = tun_mem_take(e->node->tun))) {
		check_delivered(w, i, packet);
		free(packet);
		delivered++;
	}
	check(e->deadline_ns > w->now_ns, "end %u: a timer does not let go", i);
	return delivered;
}

static void receive(struct world *w, struct datagram *d)
{
	for (unsigned i = 0; i <= w->nr_clients; i++) {
		struct end *e = &w->end[i];
		bool expired = false;

		if (!endpoint_same_to(&e->node->address, &d->to))
			continue;
		settle(w, i);
		if (datagram_type(d) == WIRE_DATA) {
			const struct session *session =
				session_table_find(&e->node->dev.sessions, wire_data_receiver(d->data));

			expired = session && session->keypair &&
				  w->now_ns - session->keypair->created_ns >= REJECT_AFTER_TIME_NS;
		}
		node_receive(e->node, d);
		const unsigned delivered = settle(w, i);
		check(!expired || !delivered, "end %u accepts data under a session past its time", i);
		break;
	}
	free(d);
}

static void send_packet(struct world *w, struct flow *f)
{
	struct end *e = &w->end[f->from];
	uint8_t packet[PACKET_BYTES_MAX];
	char src[32], dst[32];

	if (w->nr_packets == w->packets_capacity) {
		w->packets_capacity = w->packets_capacity ? 2 * w->packets_capacity : 1 << 16;
		w->packets = realloc(w->packets, w->packets_capacity * sizeof(w->packets[0]));
		check(w->packets, "memory");
	}
	const uint64_t id = w->nr_packets++;
	struct packet *p = &w->packets[id];
	*p = (struct packet){
		.sent_ns = w->now_ns,
		.len = 36 + (uint32_t)random_below(chance(100) ? PACKET_BYTES_MAX - 36 : 100),
		.from = (uint8_t)f->from,
		.to = (uint8_t)f->to,
		.from_host = (uint8_t)(1 + random_below(250)),
		.to_host = (uint8_t)(1 + random_below(250)),
	};
	snprintf(src, sizeof(src), "10.0.%u.%u", p->from, p->from_host);
	snprintf(dst, sizeof(dst), "10.0.%u.%u", p->to, p->to_host);
	/* Clients lie about their address: another client's, or nobody's. */
	if (f->from != GATEWAY && chance(20)) {
		const unsigned other = (unsigned)random_below(w->nr_clients + 3);

		if (other != f->from) {
			snprintf(src, sizeof(src), "10.0.%u.%u", other, p->from_host);
			p->fate = PACKET_FORBIDDEN;
			total.forbidden++;
		}
	}
	if (p->fate == PACKET_UNDERWAY && e->last_response_ns[f->to] + OVERTAKING_NS >= w->now_ns)
		p->fate = PACKET_OVERTAKEN;
	total.packets++;
	settle(w, f->from);
	node_tun_packet(e->node, packet, packet_make(packet, src, dst, id, p->len));
	settle(w, f->from);
}

static void flow_next(struct world *w, struct flow *f)
{
	uint64_t wait_ns;

	if (w->idle)
		wait_ns = UINT64_MAX / 2;
	else if (w->calm)
		wait_ns = SECONDS(0.5) + random_below(SECONDS(1));
	else if (chance(900))
		wait_ns = random_below(SECONDS(0.2));
	else if (chance(950))
		wait_ns = random_below(SECONDS(20));
	else
		wait_ns = random_below(SECONDS(900));
	f->next_ns = w->now_ns + wait_ns;
}

/* ---- chaos ---- */

static void disturb(struct world *w)
{
	const unsigned client = 1 + (unsigned)random_below(w->nr_clients),
		       any = (unsigned)random_below(w->nr_clients + 1);
	struct end *e = &w->end[any], *g = &w->end[GATEWAY], *c = &w->end[client];

	settle(w, any);
	settle(w, client);
	settle(w, GATEWAY);
	switch (random_below(8)) {
	case 0:
		restart(w, any);
		break;
	case 1: /* a client moves */
		set_address(w, client);
		memset(c->last_initiation_ns, 0, sizeof(c->last_initiation_ns));
		total.roams++;
		break;
	case 2: { /* a client gets a new key, and the gateway is told */
		struct peer *old = peer_of(w, GATEWAY, client);

		if (old)
			device_remove_peer(&g->node->dev, old);
		new_key(w, client);
		device_set_private_key(&c->node->dev, c->private_key);
		add_peer(w, GATEWAY, client, chance(500));
		total.keys++;
		break;
	}
	case 3: { /* a new preshared key; sessions go on */
		randombytes_buf(c->preshared, sizeof(c->preshared));
		device_set_preshared(&g->node->dev, peer_of(w, GATEWAY, client), c->preshared);
		device_set_preshared(&c->node->dev, peer_of(w, client, GATEWAY), c->preshared);
		total.keys++;
		break;
	}
	case 4: /* another wire, possibly none */
		w->wire = (struct wire){
			.loss = chance(200) ? 1000 : (unsigned)random_below(300),
			.duplicates = (unsigned)random_below(100),
			.damage = (unsigned)random_below(100),
			.delay_ns = random_below(SECONDS(0.1)),
			.delay_spread_ns = random_below(SECONDS(0.2)),
		};
		total.outages += w->wire.loss == 1000;
		break;
	case 5:
		if (e->node->dev.up)
			device_down(&e->node->dev);
		else
			device_up(&e->node->dev);
		memset(e->last_initiation_ns, 0, sizeof(e->last_initiation_ns));
		total.downs++;
		break;
	case 6: /* the wall clock of an end jumps back, until it restarts or all is calm */
		e->node->realtime_offset_ns = -random_below(SECONDS(100000));
		break;
	case 7:
		c->persistent_keepalive_s = chance(500) ? 0 : (uint16_t)(1 + random_below(60));
		c->keepalives = 0;
		c->keepalives_allowed_ns = w->now_ns;
		device_set_persistent_keepalive(
			&c->node->dev, peer_of(w, client, GATEWAY), c->persistent_keepalive_s);
		break;
	}
	settle(w, any);
	settle(w, client);
	settle(w, GATEWAY);
	w->next_disturbance_ns = w->now_ns + random_below(SECONDS(chance(300) ? 10 : 300));
}

static void run(struct world *w, uint64_t ns)
{
	const uint64_t end_ns = w->now_ns + ns;

	for (unsigned i = 0; i < 2 * w->nr_clients; i++)
		flow_next(w, &w->flow[i]);
	for (;;) {
		uint64_t next_ns = MIN(end_ns, w->next_disturbance_ns);

		for (unsigned i = 0; i <= w->nr_clients; i++)
			next_ns = MIN(next_ns, w->end[i].deadline_ns);
		for (unsigned i = 0; i < 2 * w->nr_clients; i++)
			next_ns = MIN(next_ns, w->flow[i].next_ns);
		if (w->nr_heap)
			next_ns = MIN(next_ns, w->heap[0].at_ns);
		check(next_ns >= w->now_ns, "time goes back");
		w->now_ns = next_ns;
		if (next_ns == end_ns)
			return;
		if (next_ns == w->next_disturbance_ns)
			disturb(w);
		while (w->nr_heap && w->heap[0].at_ns <= w->now_ns)
			receive(w, next_delivery(w));
		for (unsigned i = 0; i <= w->nr_clients; i++)
			if (w->end[i].deadline_ns <= w->now_ns)
				settle(w, i);
		for (unsigned i = 0; i < 2 * w->nr_clients; i++) {
			if (w->flow[i].next_ns <= w->now_ns) {
				send_packet(w, &w->flow[i]);
				flow_next(w, &w->flow[i]);
			}
		}
	}
}

static void chaos(struct world *w)
{
	w->calm = w->idle = false;
	w->next_disturbance_ns = w->now_ns;
	run(w, SECONDS(600) + random_below(SECONDS(3600)));
	w->next_disturbance_ns = UINT64_MAX;
}

/* Everything is in order again but for what the ends remember. */
static void calm(struct world *w)
{
	for (unsigned i = 0; i <= w->nr_clients; i++) {
		settle(w, i);
		device_up(&w->end[i].node->dev);
		/* An end that has forgotten what it sent before its clock went back is refused until the
		 * clock is right. */
		w->end[i].node->realtime_offset_ns = 0;
		settle(w, i);
	}
	w->wire = good_wire;
	w->calm = true;
	w->idle = false;
	run(w, RECOVERY_NS);
	const size_t from = w->nr_packets;
	run(w, SECONDS(200));
	const size_t to = w->nr_packets;
	run(w, SECONDS(10));
	for (size_t id = from; id < to; id++) {
		const struct packet *p = &w->packets[id];

		total.overtaken += p->fate == PACKET_OVERTAKEN;
		check(p->fate != PACKET_UNDERWAY,
			"a packet of end %u for end %u, sent %f s after all was well, is lost", p->from,
			p->to,
			(double)(p->sent_ns - w->packets[from].sent_ns) / 1e9 + (double)RECOVERY_NS / 1e9);
	}
}

/* Without local senders and persistent keepalives it must become silent, and stay so. */
static void idle(struct world *w)
{
	const uint64_t for_ns = SILENCE_NS + random_below(SECONDS(1200));

	for (unsigned i = 1; i <= w->nr_clients; i++) {
		settle(w, i);
		device_set_persistent_keepalive(&w->end[i].node->dev, peer_of(w, i, GATEWAY), 0);
	}
	w->wire = good_wire;
	w->idle = true;
	w->silent_from_ns = w->now_ns + SILENCE_NS;
	run(w, for_ns);
	w->silent_from_ns = UINT64_MAX;
	for (unsigned i = 1; i <= w->nr_clients; i++) {
		settle(w, i);
		device_set_persistent_keepalive(
			&w->end[i].node->dev, peer_of(w, i, GATEWAY), w->end[i].persistent_keepalive_s);
		settle(w, i);
	}
}

static void world(uint64_t for_ns)
{
	static struct world w;

	memset(&w, 0, sizeof(w));
	w.now_ns = NODE_EPOCH_NS;
	w.silent_from_ns = w.next_disturbance_ns = UINT64_MAX;
	w.port = 10000;
	w.nr_clients = 1 + (unsigned)random_below(CLIENTS_MAX);
	for (unsigned i = 0; i <= w.nr_clients; i++) {
		new_key(&w, i);
		set_address(&w, i);
		if (i != GATEWAY && chance(300))
			w.end[i].persistent_keepalive_s = 25;
		if (chance(500))
			randombytes_buf(w.end[i].preshared, sizeof(w.end[i].preshared));
	}
	for (unsigned i = 0; i <= w.nr_clients; i++)
		start(&w, i);
	for (unsigned i = 0; i < w.nr_clients; i++) {
		w.flow[2 * i] = (struct flow){.from = GATEWAY, .to = i + 1};
		w.flow[2 * i + 1] = (struct flow){.from = i + 1, .to = GATEWAY};
	}

	while (w.now_ns < NODE_EPOCH_NS + for_ns) {
		chaos(&w);
		if (chance(300))
			idle(&w);
		calm(&w);
		if (chance(500))
			idle(&w);
		for (unsigned i = 0; i <= w.nr_clients; i++)
			check_keepalives(&w, i);
	}

	for (unsigned i = 0; i <= w.nr_clients; i++) {
		count_handshakes(&w, i);
		node_free(w.end[i].node);
	}
	while (w.nr_heap)
		free(next_delivery(&w));
	free(w.heap);
	free(w.packets);
	check(secret_in_use() == 0, "%zu bytes of secrets leaked", secret_in_use());
	total.sim_ns += w.now_ns - NODE_EPOCH_NS;
}

static unsigned number_from(const char *variable, unsigned otherwise)
{
	const char *text = getenv(variable);

	return text ? (unsigned)strtoul(text, NULL, 0) : otherwise;
}

int main(void)
{
	const unsigned worlds = number_from("SIM_WORLDS", 8), hours = number_from("SIM_HOURS", 12);
	char error[LOG_ERROR_BYTES];
	struct timespec begin, end;

	seed = seed_choose("SIM_SEED");
	random_seed_all(seed);
	check(!secret_init(), "libsodium");
	check(!log_set_directives(getenv("SIM_LOG") ? getenv("SIM_LOG") : "off", error), "SIM_LOG");
	rcu_register_thread();
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (unsigned i = 0; i < worlds; i++)
		world(hours * SECONDS(3600));
	clock_gettime(CLOCK_MONOTONIC, &end);
	rcu_unregister_thread();

	printf("%.1f days of %u worlds in %.1f s: %" PRIu64 " packets, %" PRIu64 " delivered, %" PRIu64
	       " forbidden, %" PRIu64 " overtaken; %" PRIu64 " datagrams, %" PRIu64 " lost, %" PRIu64
	       " doubled, %" PRIu64 " damaged; %" PRIu64 " handshakes, %" PRIu64 " restarts, %" PRIu64
	       " roams, %" PRIu64 " new keys, %" PRIu64 " outages, %" PRIu64 " up or down\n",
		(double)total.sim_ns / 86400e9, worlds,
		(double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9,
		total.packets, total.delivered, total.forbidden, total.overtaken, total.datagrams, total.lost,
		total.duplicated, total.damaged, total.handshakes, total.restarts, total.roams, total.keys,
		total.outages, total.downs);
	/* A simulation in which little happens would prove little. */
	check(total.delivered > total.packets / 4 && total.lost && total.duplicated && total.damaged,
		"too little happened");
	check(total.overtaken <= 3 + total.handshakes / 500, "too many packets lost around handshakes");
	return 0;
}
