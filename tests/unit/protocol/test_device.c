#include "core/protocol/device.h"

#include <signal.h>
#include <sodium.h>

#include "tests/unit/protocol/support.h"

static struct pair p;

static void init(void)
{
	pair_init(&p);
}

static void done(void)
{
	pair_done(&p);
}

TestSuite(device, .init = init, .fini = done);

static bool sessions_or_handshake(const struct peer *peer)
{
	return peer->previous || peer->current || peer->next || peer->handshake_session;
}

Test(device, carries_packets_both_ways)
{
	uint64_t id;

	pair_send_ab(&p, 11);
	pair_exchange(&p);
	cr_assert_eq(delivered(p.b, &id), 1);
	cr_assert_eq(id, 11);
	pair_send_ba(&p, 12);
	pair_exchange(&p);
	cr_assert_eq(delivered(p.a, &id), 1);
	cr_assert_eq(id, 12);
}

Test(device, that_was_never_made_or_is_done_can_be_taken_down)
{
	static struct device dev;

	device_done(&dev);
	cr_assert_eq(device_init(&dev, 1, 1420), 0);
	device_done(&dev);
	device_done(&dev);
}

#ifndef NDEBUG
static struct park state_park;
static struct baton state_baton;

static void hold_for_a(void)
{
	park_init(&state_park);
	baton_init(&state_baton, &state_park);
	p.a->dev.baton = &state_baton;
}

Test(device, serves_the_holder_of_its_baton)
{
	hold_for_a();
	cr_assert(baton_try(&state_baton));
	device_remove_peer(&p.a->dev, p.pb);
	baton_pass(&state_baton);
	/* The test's own end of the device asks for nothing. */
	p.a->dev.baton = NULL;
}

/* Each of them ends the process, so each is a test. */
Test(device, is_not_changed_without_its_baton, .signal = SIGABRT)
{
	hold_for_a();
	device_remove_peer(&p.a->dev, p.pb);
}

Test(device, seals_nothing_without_its_baton, .signal = SIGABRT)
{
	hold_for_a();
	egress_keepalive(&p.a->dev, p.pb);
}

Test(device, runs_no_timer_without_its_baton, .signal = SIGABRT)
{
	hold_for_a();
	timers_run(&p.a->dev, 1);
}

Test(device, rotates_no_session_without_its_baton, .signal = SIGABRT)
{
	hold_for_a();
	peer_clear_sessions(&p.a->dev, p.pb);
}

Test(device, handles_no_handshake_without_its_baton, .signal = SIGABRT)
{
	hold_for_a();
	handshake_initiate(&p.a->dev, p.pb, false);
}
#endif

Test(device, peers_are_numbered_and_spread_over_the_tun_tx_threads_in_order)
{
	struct device dev;
	unsigned n = 0;
	struct peer *peer;

	cr_assert_eq(device_init(&dev, 3, 1420), 0);
	device_set_time(&dev, 1, 1);
	dev.drops = &p.a->drops;
	for (uint8_t i = 1; i <= 7; i++) {
		const uint8_t key[NOISE_KEY_BYTES] = {i};

		device_add_peer(&dev, peer_new(key, NULL));
	}
	cds_list_for_each_entry (peer, &dev.peers, link) {
		cr_assert_eq(peer->id, n);
		cr_assert_eq(peer->owner, n % 3);
		cr_assert_eq(peer->public_key[0], n + 1);
		n++;
	}
	cr_assert_eq(n, 7);
	device_done(&dev);
}

Test(device, finds_peers_by_key_until_they_are_removed)
{
	uint8_t key[NOISE_KEY_BYTES];

	memcpy(key, p.pb->public_key, sizeof(key));
	cr_assert_eq(device_find_peer(&p.a->dev, key), p.pb);
	device_remove_peer(&p.a->dev, p.pb);
	cr_assert_null(device_find_peer(&p.a->dev, key));
	cr_assert_eq(p.a->dev.nr_peers, 0);
}

Test(device, a_removed_peer_leaves_no_secret_and_no_packet_behind)
{
	pair_send_ab(&p, 1);
	discard_sent(p.a, WIRE_INITIATION);
	device_remove_peer(&p.a->dev, p.pb);
	cr_assert_eq(p.a->dev.staged_bytes, 0);
	rcu_barrier();
	cr_assert_eq(secret_in_use(), sizeof(struct peer));
}

Test(device, going_down_clears_sessions_timers_and_staged_packets)
{
	pair_connect(&p);
	const uint32_t index = p.pb->current->index;
	pair_send_ab(&p, 1);
	discard_sent(p.a, WIRE_DATA);
	device_down(&p.a->dev);
	cr_assert(!sessions_or_handshake(p.pb));
	cr_assert_null(session_table_find(&p.a->dev.sessions, index));
	for (unsigned i = 0; i < PEER_TIMERS; i++)
		cr_assert_eq(p.pb->deadline_ns[i], 0);
	cr_assert_eq(node_run(p.a, p.now_ns), UINT64_MAX);

	device_up(&p.a->dev);
	device_down(&p.b->dev);
	pair_send_ab(&p, 2);
	free(expect_sent(p.a, WIRE_INITIATION));
	cr_assert_eq(p.pb->staged_segments, 1);
	device_down(&p.a->dev);
	cr_assert_eq(p.pb->staged_segments, 0);
	device_up(&p.b->dev);
	device_up(&p.a->dev);
	pair_exchange(&p);
	expect_silence(p.a);
	/* No hold of our own is left from before, only b's 20 ms. */
	pair_skip(&p, SECONDS(0.02));
	pair_send_ab(&p, 3);
	pair_exchange(&p);
	cr_assert_eq(delivered(p.b, NULL), 1);
}

Test(device, nothing_is_sent_or_taken_while_down)
{
	pair_connect(&p);
	pair_send_ba(&p, 1);
	struct datagram *d = expect_sent(p.b, WIRE_DATA);
	device_down(&p.a->dev);
	node_receive(p.a, d);
	free(d);
	cr_assert_eq(delivered(p.a, NULL), 0);
	pair_send_ab(&p, 2);
	egress_keepalive(&p.a->dev, p.pb);
	device_set_persistent_keepalive(&p.a->dev, p.pb, 1);
	pair_skip(&p, SECONDS(10));
	node_run(p.a, p.now_ns);
	expect_silence(p.a);
	cr_assert_eq(node_drops(p.a, DROP_EGRESS_DOWN), 1);
}

Test(device, coming_up_sends_persistent_keepalives)
{
	device_down(&p.a->dev);
	device_set_persistent_keepalive(&p.a->dev, p.pb, 25);
	node_settle(p.a);
	expect_silence(p.a);
	device_up(&p.a->dev);
	node_run(p.a, p.now_ns);
	free(expect_sent(p.a, WIRE_INITIATION));
}

/* Adds as many peers with a persistent keepalive as nr says. */
static void add_keepalive_peers(unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		uint8_t key[NOISE_KEY_BYTES];

		randombytes_buf(key, sizeof(key));
		device_set_persistent_keepalive(&p.a->dev, node_add_peer(p.a, key, "192.0.2.9:9", NULL), 25);
	}
}

/* Fails unless each of nr peers is asked for a handshake, at most 8 in a turn. */
static void expect_starts_in_turns(unsigned nr)
{
	gso_queue_flush(&p.a->queue);
	expect_silence(p.a);
	while (nr) {
		const unsigned turn = MIN(nr, 8u);
		const uint64_t next_ns = timers_run(&p.a->dev, 8);

		gso_queue_flush(&p.a->queue);
		cr_assert_eq(discard_sent(p.a, WIRE_INITIATION), turn);
		nr -= turn;
		cr_assert_eq(next_ns <= p.now_ns, nr > 0, "who sleeps until then");
	}
}

Test(device, many_keepalives_at_once_are_spread_over_turns)
{
	enum { PEERS = 100 };

	/* Switched on ... */
	add_keepalive_peers(PEERS);
	expect_starts_in_turns(PEERS);
	/* ... the key changed ... */
	node_set_random_key(p.a);
	expect_starts_in_turns(PEERS);
	/* ... and the interface brought up. */
	device_down(&p.a->dev);
	device_up(&p.a->dev);
	expect_starts_in_turns(PEERS);
}

Test(device, a_keepalive_switched_off_again_before_its_turn_is_not_sent)
{
	device_set_persistent_keepalive(&p.a->dev, p.pb, 25);
	device_set_persistent_keepalive(&p.a->dev, p.pb, 0);
	cr_assert_eq(node_run(p.a, p.now_ns), UINT64_MAX);
	expect_silence(p.a);
}

Test(device, packets_that_wait_start_over_under_a_new_private_key)
{
	pair_send_ab(&p, 1);
	free(expect_sent(p.a, WIRE_INITIATION));
	node_set_random_key(p.a);
	node_run(p.a, p.now_ns);
	free(expect_sent(p.a, WIRE_INITIATION));
	cr_assert_eq(p.pb->staged_segments, 1);
}

Test(device, a_private_key_that_comes_late_starts_persistent_keepalives)
{
	const uint8_t none[NOISE_KEY_BYTES] = {0};
	uint8_t key[NOISE_KEY_BYTES];

	memcpy(key, p.a->dev.identity.private_key, sizeof(key));
	device_set_private_key(&p.a->dev, none);
	device_set_persistent_keepalive(&p.a->dev, p.pb, 25);
	node_settle(p.a);
	expect_silence(p.a);
	device_set_private_key(&p.a->dev, key);
	node_run(p.a, p.now_ns);
	pair_exchange(&p);
	cr_assert(p.pa->current);
}

Test(device, a_new_private_key_ends_sessions_and_starts_over)
{
	uint8_t new_public[NOISE_KEY_BYTES];

	pair_connect(&p);
	device_set_persistent_keepalive(&p.a->dev, p.pb, 25);
	node_run(p.a, p.now_ns);
	pair_exchange(&p);
	node_set_random_key(p.a);
	node_run(p.a, p.now_ns);
	memcpy(new_public, p.a->dev.identity.public_key, sizeof(new_public));
	cr_assert_null(p.pb->current);
	struct datagram *d = expect_sent(p.a, WIRE_INITIATION);
	node_receive(p.b, d);
	cr_assert_eq(node_drops(p.b, DROP_HANDSHAKE_UNKNOWN_PEER), 1);
	free(d);

	/* Once b knows the new key they talk again: nothing computed from the old one is left. */
	device_remove_peer(&p.b->dev, p.pa);
	p.pa = node_add_peer(p.b, new_public, ADDRESS_A, "10.0.0.1/32");
	pair_run(&p, SECONDS(6));
	cr_assert(p.pa->current && p.pb->current);
}

Test(device, the_same_private_key_again_changes_nothing)
{
	uint8_t key[NOISE_KEY_BYTES];

	pair_connect(&p);
	const struct session *session = p.pb->current;
	memcpy(key, p.a->dev.identity.private_key, sizeof(key));
	device_set_private_key(&p.a->dev, key);
	cr_assert_eq(p.pb->current, session);
}

Test(device, a_peer_that_becomes_oneself_is_removed)
{
	uint8_t key[NOISE_KEY_BYTES];

	memcpy(key, p.b->dev.identity.private_key, sizeof(key));
	device_set_private_key(&p.a->dev, key);
	cr_assert_eq(p.a->dev.nr_peers, 0);
	cr_assert_eq(p.a->dev.allowed_ips.count, 0);
}

Test(device, authenticated_data_from_elsewhere_moves_the_endpoint)
{
	struct endpoint e;

	pair_connect(&p);
	cr_assert_eq(endpoint_parse(&e, "203.0.113.7:7"), 0);
	pair_send_ab(&p, 1);
	struct datagram *d = expect_sent(p.a, WIRE_DATA);
	d->from = e;
	/* Not before it authenticates ... */
	d->data[d->len - 1] ^= 1;
	node_receive(p.b, d);
	cr_assert(endpoint_same_to(&p.pa->endpoint, &p.a->address));
	d->data[d->len - 1] ^= 1;
	node_receive(p.b, d);
	cr_assert(endpoint_same_to(&p.pa->endpoint, &e));
	/* ... and not by a replay. */
	d->from = p.a->address;
	node_receive(p.b, d);
	cr_assert(endpoint_same_to(&p.pa->endpoint, &e));
	free(d);
	pair_send_ba(&p, 2);
	d = expect_sent(p.b, WIRE_DATA);
	cr_assert(endpoint_same_to(&d->to, &e));
	free(d);
}

Test(device, a_configured_endpoint_lasts_until_the_peer_is_heard_again)
{
	struct endpoint e;

	pair_connect(&p);
	cr_assert_eq(endpoint_parse(&e, "203.0.113.7:7"), 0);
	device_set_endpoint(&p.b->dev, p.pa, &e);
	cr_assert(endpoint_same_to(&p.pa->endpoint, &e));
	/* From where it always came: the tun-tx thread must tell again. */
	pair_send_ab(&p, 1);
	pair_exchange(&p);
	cr_assert(endpoint_same_to(&p.pa->endpoint, &p.a->address));
}

/* What the tun-tx thread does when a's data comes from elsewhere, up to where the state thread's turn ends
 * before the note. */
static void leave_in_mailbox(struct peer *peer, const struct endpoint *from)
{
	peer->roamed = *from;
	atomic_store(&peer->roamed_pending, true);
	peer->rx_endpoint = *from;
	peer->rx_endpoint_generation = peer->endpoint_generation;
}

Test(device, a_configured_endpoint_wins_over_an_older_move)
{
	struct endpoint moved, configured;

	pair_connect(&p);
	cr_assert_eq(endpoint_parse(&moved, "203.0.113.7:7"), 0);
	cr_assert_eq(endpoint_parse(&configured, "203.0.113.8:8"), 0);
	leave_in_mailbox(p.pa, &moved);
	device_set_endpoint(&p.b->dev, p.pa, &configured);
	device_note(&p.b->dev, note_encode(NOTE_ROAMED, p.pa->current->index));
	cr_assert(endpoint_same_to(&p.pa->endpoint, &configured));

	/* The same one that it had is as new as any other ... */
	leave_in_mailbox(p.pa, &moved);
	device_set_endpoint(&p.b->dev, p.pa, &configured);
	device_note(&p.b->dev, note_encode(NOTE_ROAMED, p.pa->current->index));
	cr_assert(endpoint_same_to(&p.pa->endpoint, &configured));

	/* ... and what comes after it from where the peer had moved to counts again. */
	pair_send_ab(&p, 1);
	struct datagram *d = expect_sent(p.a, WIRE_DATA);
	moved.from.v4 = p.b->address.to.v4.sin_addr;
	p.pa->rx_endpoint = moved;
	d->from = moved;
	node_receive(p.b, d);
	free(d);
	cr_assert(endpoint_same_to(&p.pa->endpoint, &moved));
}

Test(device, forgetting_the_source_keeps_a_move_that_waits)
{
	struct endpoint moved;

	pair_connect(&p);
	cr_assert_eq(endpoint_parse(&moved, "203.0.113.7:7"), 0);
	moved.from.v4.s_addr = 0x01020304;
	leave_in_mailbox(p.pa, &moved);
	peer_forget_source(p.pa);
	device_note(&p.b->dev, note_encode(NOTE_ROAMED, p.pa->current->index));
	cr_assert(endpoint_same_to(&p.pa->endpoint, &moved));
	cr_assert_eq(p.pa->endpoint.from.v4.s_addr, 0);
}

Test(device, replies_leave_from_the_address_that_was_talked_to)
{
	pair_connect(&p);
	pair_send_ba(&p, 1);
	struct datagram *d = expect_sent(p.b, WIRE_DATA);
	cr_assert_eq(d->to.from.v4.s_addr, p.b->address.to.v4.sin_addr.s_addr);
	free(d);
}

/* b's TUN: the local receiver answers at once, and the state thread may run before the writer does again. */
static void answer(void *arg, const struct train_packet *meta, const uint8_t *data)
{
	node_settle(p.b);
	cr_assert(p.pa->current, "the answer would go under an older session");
	(*(unsigned *)arg)++;
}

Test(device, an_answer_to_the_first_packet_goes_under_its_session)
{
	struct tun_queue *queue = p.b->ingress.queue;
	unsigned answered = 0;
	struct tun_mem *tun;
	uint8_t packet[64];

	cr_assert_eq(tun_mem_new(&tun, 0, 0, 16, answer, &answered), 0);
	p.b->ingress.queue = tun_mem_queue(tun);
	/* Not one that is held back to be coalesced. */
	packet_make(packet, "10.0.0.1", "10.0.0.2", 1, sizeof(packet));
	packet[9] = IPPROTO_ICMP;
	node_tun_packet(p.a, packet, sizeof(packet));
	pair_exchange(&p);
	cr_assert_eq(answered, 1);
	p.b->ingress.queue = queue;
	tun_mem_free(tun);
}

Test(device, packets_from_outside_the_peers_allowed_ips_are_dropped)
{
	uint8_t packet[64];

	pair_connect(&p);
	/* a's own routing only looks at the destination. */
	node_tun_packet(p.a, packet, packet_make(packet, "10.0.0.77", "10.0.0.2", 1, sizeof(packet)));
	pair_exchange(&p);
	cr_assert_eq(delivered(p.b, NULL), 0);
	cr_assert_eq(node_drops(p.b, DROP_INGRESS_NOT_ALLOWED), 1);
}

Test(device, notes_about_sessions_that_are_gone_are_ignored)
{
	pair_connect(&p);
	const uint32_t index = p.pa->current->index;
	device_down(&p.b->dev);
	for (enum note n = NOTE_CONFIRMED; n <= NOTE_ROAMED; n++) {
		device_note(&p.b->dev, note_encode(n, index));
		device_note(&p.b->dev, note_encode(n, ~index));
	}
	device_up(&p.b->dev);
	node_settle(p.b);
	expect_silence(p.b);
}

Test(device, no_note_touches_a_peer_whose_index_is_only_a_handshake)
{
	handshake_initiate(&p.a->dev, p.pb, false);
	for (enum note n = NOTE_CONFIRMED; n <= NOTE_ROAMED; n++)
		device_note(&p.a->dev, note_encode(n, p.pb->handshake_session->index));
	node_settle(p.a);
	free(expect_sent(p.a, WIRE_INITIATION));
}

Test(device, secrets_return_to_the_baseline)
{
	rcu_barrier();
	const size_t baseline = secret_in_use();

	for (unsigned i = 0; i < 20; i++) {
		pair_send_ab(&p, i);
		pair_run(&p, SECONDS(125));
	}
	device_down(&p.a->dev);
	device_down(&p.b->dev);
	rcu_barrier();
	cr_assert_eq(secret_in_use(), baseline);
}
