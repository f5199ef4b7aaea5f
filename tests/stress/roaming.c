/*
 * A peer that moves with every datagram, on the tun-tx thread's side, while the ring of notes is full and the
 * state holder empties the mailbox peer->roamed for reasons of its own. What it takes must be a place where
 * the peer was, never half of one and half of another. In a build with thread sanitizer any write to the
 * mailbox that the holder may be reading is found.
 */
#include "core/base/log.h"
#include "core/protocol/handshake.h"
#include "crypto/secret.h"
#include "tests/sim/node.h"
#include "tests/stress/stress.h"

#define MESSAGES 200000
#define TAKEN_MIN 100 /* or it has tried nothing */
#define PLACES 2

static struct node *a, *b;
static struct endpoint place[PLACES];
static _Atomic bool done;
static counter_t taken;

static void carry(struct node *from, struct node *to)
{
	struct datagram *d;

	while ((d = node_take(from))) {
		node_receive(to, d);
		free(d);
	}
}

/* The state holder: as its timers do, it takes what is there without waiting for a note. */
static void *take(void *arg)
{
	struct peer *peer = arg;

	while (!atomic_load_explicit(&done, memory_order_relaxed)) {
		if (!atomic_load_explicit(&peer->roamed_pending, memory_order_relaxed))
			continue;
		peer_take_roamed(peer);
		counter_add(&taken, 1);
		REQUIRE(endpoint_equal(&peer->endpoint, &place[0]) ||
				endpoint_equal(&peer->endpoint, &place[1]),
			"torn after %llu", (unsigned long long)counter_read(&taken));
	}
	return NULL;
}

int main(void)
{
	char error[LOG_ERROR_BYTES];
	uint8_t packet[64];
	const uint64_t messages = stress_rounds(MESSAGES);

	REQUIRE(!log_set_directives("off", error), "setup");
	random_seed_all(seed_choose("SLUICE_SEED"));
	REQUIRE(!secret_init(), "setup");
	rcu_register_thread();
	a = node_new("192.0.2.1:1001");
	b = node_new("192.0.2.2:1002");
	node_pair(a, b, "192.0.2.1:1001", "192.0.2.2:1002");
	handshake_initiate(&a->dev, node_peer(a), false);
	node_settle(a);
	for (unsigned i = 0; i < 3; i++) {
		carry(a, b);
		carry(b, a);
	}
	REQUIRE(node_peer(a)->current && node_peer(b)->current, "setup");

	REQUIRE(!endpoint_parse(&place[0], "198.51.100.1:11111"), "setup");
	REQUIRE(!endpoint_parse(&place[1], "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535"), "setup");
	for (unsigned i = 0; i < PLACES; i++)
		place[i].from.v4 = b->address.to.v4.sin_addr;
	while (mpsc_push(b->ingress.notes, note_encode(NOTE_REKEY, 0)))
		;
	const pthread_t holder = stress_start(take, node_peer(b));
	for (uint64_t i = 0; i < messages || counter_read(&taken) < TAKEN_MIN; i++) {
		node_tun_packet(a, packet, packet_make(packet, "10.0.0.1", "10.0.0.2", i, sizeof(packet)));
		struct datagram *d = node_take(a);

		REQUIRE(d, "nothing sealed");
		d->from = place[i % PLACES];
		node_dispatch(b, d);
		node_open(b);
		free(d);
		free(tun_mem_take(b->tun));
	}
	atomic_store(&done, true);
	stress_join(holder);
	printf("roaming: %llu moves, %llu taken\n", (unsigned long long)messages,
		(unsigned long long)counter_read(&taken));

	/* The nodes stay: of the grace periods that freeing them needs, liburcu tells the sanitizer
	 * nothing. */
	rcu_unregister_thread();
	return 0;
}
