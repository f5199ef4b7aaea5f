#include <limits.h>
#include <signal.h>

#include "core/protocol/timers.h"
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

TestSuite(timers, .init = init, .fini = done);

/* Lets a's timers run, alone, for that long; what it sends stays with it. */
static void run_alone(struct node *node, uint64_t ns)
{
	const uint64_t end_ns = p.now_ns + ns;

	while (p.now_ns < end_ns) {
		const uint64_t next_ns = node_run(node, p.now_ns);

		p.now_ns = MIN(end_ns, MAX(next_ns, p.now_ns + 1));
	}
	node_run(p.a, p.now_ns);
	node_run(p.b, p.now_ns);
}

/* ---- rekeying ---- */

Test(timers, initiator_rekeys_after_120_s_when_it_sends)
{
	pair_connect(&p);
	pair_run(&p, SECONDS(119.9));
	pair_send_ab(&p, 1);
	pair_exchange(&p);
	cr_assert_eq(p.passed[WIRE_INITIATION], 0);
	pair_run(&p, SECONDS(0.2));
	pair_send_ab(&p, 2);
	pair_exchange(&p);
	cr_assert_eq(p.passed[WIRE_INITIATION], 1);
	cr_assert_eq(delivered(p.b, NULL), 2, "the old session serves meanwhile");
	cr_assert_eq(counter_read(&p.a->dev.counters.rekeys), 1);
}

Test(timers, responder_does_not_rekey_while_the_session_lasts)
{
	pair_connect(&p);
	pair_run(&p, SECONDS(179));
	pair_send_ba(&p, 1);
	free(expect_sent(p.b, WIRE_DATA));
}

Test(timers, nothing_is_sent_under_a_session_of_180_s)
{
	pair_connect(&p);
	pair_run(&p, SECONDS(181));
	pair_send_ba(&p, 1);
	/* The packet waits for the handshake that it caused. */
	struct datagram *d = expect_sent(p.b, WIRE_INITIATION);
	node_receive(p.a, d);
	free(d);
	pair_exchange(&p);
	cr_assert_eq(delivered(p.a, NULL), 1);
}

Test(timers, nothing_is_received_under_a_session_of_180_s)
{
	pair_connect(&p);
	pair_skip(&p, SECONDS(179.9));
	pair_send_ba(&p, 1);
	struct datagram *d = expect_sent(p.b, WIRE_DATA);
	pair_skip(&p, SECONDS(0.2));
	node_receive(p.a, d);
	free(d);
	cr_assert_eq(delivered(p.a, NULL), 0);
	cr_assert_eq(node_drops(p.a, DROP_INGRESS_EXPIRED), 1);
}

Test(timers, initiator_that_only_receives_rekeys_at_165_s_once)
{
	pair_connect(&p);
	pair_run(&p, SECONDS(164.9));
	pair_send_ba(&p, 1);
	pair_exchange(&p);
	cr_assert_eq(p.passed[WIRE_INITIATION], 0);
	pair_run(&p, SECONDS(0.2));
	p.cut = true;
	pair_send_ba(&p, 2);
	struct datagram *data = expect_sent(p.b, WIRE_DATA);
	node_receive(p.a, data);
	free(data);
	cr_assert_eq(discard_sent(p.a, WIRE_INITIATION), 1);
	/* While that is retried every five seconds, more data adds nothing. */
	for (unsigned i = 0; i < 4; i++) {
		pair_skip(&p, NS_PER_SEC);
		pair_send_ba(&p, 3 + i);
		data = expect_sent(p.b, WIRE_DATA);
		node_receive(p.a, data);
		free(data);
	}
	cr_assert_eq(discard_sent(p.a, WIRE_INITIATION), 0);
}

Test(timers, message_limits_rekey_and_reject)
{
	pair_connect(&p);
	p.pb->current->keypair->send_counter = REKEY_AFTER_MESSAGES - 1;
	pair_skip(&p, SECONDS(6));
	pair_send_ab(&p, 1);
	cr_assert_eq(discard_sent(p.a, WIRE_INITIATION), 0);
	pair_send_ab(&p, 2);
	cr_assert_eq(discard_sent(p.a, WIRE_INITIATION), 1);

	/* Responders, too. */
	p.pa->current->keypair->send_counter = REKEY_AFTER_MESSAGES;
	pair_send_ba(&p, 3);
	cr_assert_eq(discard_sent(p.b, WIRE_INITIATION), 1);

	p.pa->current->keypair->send_counter = REJECT_AFTER_MESSAGES - 1;
	pair_send_ba(&p, 4);
	cr_assert_eq(discard_sent(p.b, WIRE_DATA), 0, "too close to the limit for a whole train");
}

/* ---- retransmission ---- */

Test(timers, unanswered_initiation_is_repeated_every_5_s_with_jitter_18_times_in_all)
{
	uint64_t last_ns = 0, min_ns = UINT64_MAX, max_ns = 0;
	unsigned sent = 0;

	pair_send_ab(&p, 1);
	cr_assert_eq(p.pb->staged_segments, 1);
	for (unsigned ms = 0; ms < 200000; ms++) {
		const unsigned nr = discard_sent(p.a, WIRE_INITIATION);

		if (nr) {
			if (last_ns) {
				min_ns = MIN(min_ns, p.now_ns - last_ns);
				max_ns = MAX(max_ns, p.now_ns - last_ns);
			}
			last_ns = p.now_ns;
			sent += nr;
		}
		pair_skip(&p, NS_PER_MS);
		node_run(p.a, p.now_ns);
	}
	cr_assert_eq(sent, 18);
	cr_assert_geq(min_ns, SECONDS(5));
	cr_assert_leq(max_ns, SECONDS(5.335));
	cr_assert_gt(max_ns - min_ns, 10 * NS_PER_MS, "no jitter");
	cr_assert_leq(last_ns, NODE_EPOCH_NS + SECONDS(91));
	cr_assert_eq(p.pb->staged_segments, 0, "what waited must be given up with the handshake");
	cr_assert_eq(node_drops(p.a, DROP_EGRESS_STAGED_EXPIRED), 1);
	cr_assert(timers_armed(p.pb, TIMER_ZERO_KEYS));
}

Test(timers, a_retry_lets_the_system_choose_the_source_again)
{
	p.pb->endpoint.from.v4.s_addr = 0x01020304;
	pair_send_ab(&p, 1);
	struct datagram *d = expect_sent(p.a, WIRE_INITIATION);
	cr_assert_eq(d->to.from.v4.s_addr, 0x01020304);
	free(d);
	run_alone(p.a, SECONDS(5.4));
	d = expect_sent(p.a, WIRE_INITIATION);
	cr_assert_eq(d->to.from.v4.s_addr, 0);
	free(d);
}

Test(timers, new_data_starts_a_new_round_of_attempts)
{
	pair_send_ab(&p, 1);
	run_alone(p.a, SECONDS(60));
	pair_send_ab(&p, 2);
	run_alone(p.a, SECONDS(60));
	cr_assert_geq(discard_sent(p.a, WIRE_INITIATION), 21);
	cr_assert_eq(p.pb->staged_segments, 2);
}

Test(timers, a_retry_held_by_our_own_response_is_postponed_not_lost)
{
	handshake_initiate(&p.a->dev, p.pb, false);
	node_settle(p.a);
	free(expect_sent(p.a, WIRE_INITIATION));
	run_alone(p.a, SECONDS(3));
	handshake_initiate(&p.b->dev, p.pa, false);
	node_settle(p.b);
	struct datagram *d = expect_sent(p.b, WIRE_INITIATION);
	node_receive(p.a, d);
	free(d);
	free(expect_sent(p.a, WIRE_RESPONSE));
	/* The response is lost and b is gone. */
	run_alone(p.a, SECONDS(4.9));
	cr_assert_eq(discard_sent(p.a, WIRE_INITIATION), 0);
	run_alone(p.a, SECONDS(0.5));
	cr_assert_eq(discard_sent(p.a, WIRE_INITIATION), 1);
}

/* ---- keepalives ---- */

Test(timers, data_without_an_answer_gets_a_keepalive_after_10_s)
{
	pair_connect(&p);
	pair_send_ab(&p, 1);
	pair_exchange(&p);
	p.passed[WIRE_DATA] = 0;
	pair_run(&p, SECONDS(9.9));
	cr_assert_eq(p.passed[WIRE_DATA], 0);
	pair_run(&p, SECONDS(0.2));
	cr_assert_eq(p.passed[WIRE_DATA], 1);
	cr_assert_eq(counter_read(&p.b->dev.counters.keepalives_sent), 1);
}

Test(timers, an_answer_saves_the_keepalive)
{
	pair_connect(&p);
	pair_run(&p, SECONDS(30));
	pair_send_ab(&p, 1);
	pair_exchange(&p);
	pair_run(&p, SECONDS(3));
	pair_send_ba(&p, 2);
	pair_exchange(&p);
	pair_run(&p, SECONDS(9.9));
	cr_assert_eq(counter_read(&p.b->dev.counters.keepalives_sent), 0);
	pair_run(&p, SECONDS(100));
	cr_assert_eq(counter_read(&p.a->dev.counters.keepalives_sent), 2,
		"the confirmation, and one for the answer");
}

Test(timers, the_10_s_count_from_the_first_packet_after_the_last_answer)
{
	pair_connect(&p);
	pair_run(&p, SECONDS(30));
	pair_send_ab(&p, 1);
	pair_exchange(&p);
	pair_run(&p, SECONDS(3));
	pair_send_ba(&p, 2);
	pair_exchange(&p);
	pair_run(&p, SECONDS(1));
	pair_send_ab(&p, 3);
	pair_exchange(&p);
	pair_run(&p, SECONDS(5));
	pair_send_ab(&p, 4);
	pair_exchange(&p);
	pair_run(&p, SECONDS(4.9));
	cr_assert_eq(counter_read(&p.b->dev.counters.keepalives_sent), 0);
	pair_run(&p, SECONDS(0.2));
	cr_assert_eq(counter_read(&p.b->dev.counters.keepalives_sent), 1);
}

Test(timers, one_way_data_gets_a_keepalive_every_10_s_while_it_lasts)
{
	pair_connect(&p);
	for (unsigned i = 0; i < 1000; i++) {
		pair_send_ab(&p, i);
		pair_exchange(&p);
		pair_run(&p, SECONDS(0.1));
	}
	const uint64_t sent = counter_read(&p.b->dev.counters.keepalives_sent);
	cr_assert(sent >= 9 && sent <= 10, "%u in 100 s", (unsigned)sent);
	cr_assert_eq(p.passed[WIRE_INITIATION], 0);
}

Test(timers, two_idle_ends_fall_silent)
{
	pair_connect(&p);
	pair_send_ab(&p, 1);
	pair_exchange(&p);
	pair_send_ba(&p, 2);
	pair_exchange(&p);
	pair_run(&p, SECONDS(30));
	const unsigned after_30_s = p.passed[WIRE_DATA];
	cr_assert_leq(after_30_s, 4);
	pair_run(&p, SECONDS(100));
	cr_assert_eq(p.passed[WIRE_DATA], after_30_s, "keepalives for keepalives");
	pair_run(&p, SECONDS(86400));
	cr_assert_eq(p.passed[WIRE_DATA], after_30_s);
	cr_assert_eq(p.passed[WIRE_INITIATION], 0);
	cr_assert_eq(node_run(p.a, p.now_ns), UINT64_MAX, "an idle peer has no timer");
}

Test(timers, the_keepalive_note_is_given_once_until_the_timer_is_idle_again)
{
	pair_connect(&p);
	/* The session's own check has run. */
	pair_run(&p, SECONDS(11));
	cr_assert(p.pa->wants_rx_note);
	pair_send_ab(&p, 1);
	pair_exchange(&p);
	cr_assert(!p.pa->wants_rx_note);
	cr_assert(timers_armed(p.pa, TIMER_SEND_KEEPALIVE));
	pair_run(&p, SECONDS(10.1));
	cr_assert(p.pa->wants_rx_note);
	cr_assert(!timers_armed(p.pa, TIMER_SEND_KEEPALIVE));
}

Test(timers, a_note_lost_with_its_session_does_not_stop_keepalives_for_ever)
{
	pair_connect(&p);
	pair_run(&p, SECONDS(11));
	/* As if the note had been under way when a rotation retired its session. */
	atomic_store(&p.pa->wants_rx_note, false);
	atomic_store(&p.pa->roamed_pending, true);
	p.pa->roamed = p.pa->endpoint;
	p.pa->roamed.to.v4.sin_port ^= 1;
	for (unsigned i = 0; i < 2; i++) {
		handshake_initiate(&p.a->dev, p.pb, false);
		node_settle(p.a);
		struct datagram *d = expect_sent(p.a, WIRE_INITIATION);
		d->from.to.v4.sin_port ^= i;
		node_receive(p.b, d);
		free(d);
		pair_exchange(&p);
		pair_run(&p, SECONDS(12));
	}
	cr_assert(p.pa->wants_rx_note);
	cr_assert(!p.pa->roamed_pending);
}

Test(timers, persistent_keepalive_is_sent_after_that_much_silence)
{
	pair_connect(&p);
	device_set_persistent_keepalive(&p.a->dev, p.pb, 25);
	node_run(p.a, p.now_ns);
	pair_exchange(&p);
	cr_assert_eq(p.passed[WIRE_DATA], 1, "switched on: one goes out at once");
	pair_run(&p, SECONDS(24.9));
	cr_assert_eq(p.passed[WIRE_DATA], 1);
	pair_run(&p, SECONDS(0.2));
	cr_assert_eq(p.passed[WIRE_DATA], 2);
	/* Any traffic, also received, counts. */
	pair_run(&p, SECONDS(20));
	pair_send_ba(&p, 1);
	pair_exchange(&p);
	pair_run(&p, SECONDS(9));
	cr_assert_eq(p.passed[WIRE_DATA], 3);
	/* The passive keepalive for that data counts, too. */
	pair_run(&p, SECONDS(2));
	cr_assert_eq(p.passed[WIRE_DATA], 4);
	pair_run(&p, SECONDS(23));
	cr_assert_eq(p.passed[WIRE_DATA], 4);
	pair_run(&p, SECONDS(2));
	cr_assert_eq(p.passed[WIRE_DATA], 5);
	device_set_persistent_keepalive(&p.a->dev, p.pb, 0);
	pair_run(&p, SECONDS(60));
	cr_assert_eq(p.passed[WIRE_DATA], 5);
}

Test(timers, persistent_keepalive_keeps_a_session_for_ever)
{
	device_set_persistent_keepalive(&p.a->dev, p.pb, 25);
	node_settle(p.a);
	pair_run(&p, SECONDS(3600));
	/* One on send each 120 s, rounded up to the next keepalive. */
	cr_assert(p.passed[WIRE_INITIATION] >= 3600 / 150 && p.passed[WIRE_INITIATION] <= 3600 / 120, "%u",
		p.passed[WIRE_INITIATION]);
	pair_send_ba(&p, 1);
	free(expect_sent(p.b, WIRE_DATA));
}

Test(timers, persistent_keepalive_goes_on_trying_a_dead_peer)
{
	device_set_persistent_keepalive(&p.a->dev, p.pb, 25);
	node_settle(p.a);
	run_alone(p.a, SECONDS(3600));
	const unsigned sent = discard_sent(p.a, WIRE_INITIATION);
	cr_assert(sent > 500 && sent <= 720, "%u initiations in an hour", sent);
}

/* ---- silence of the other end ---- */

Test(timers, data_with_nothing_back_starts_a_handshake_after_15_s)
{
	pair_connect(&p);
	pair_run(&p, SECONDS(20));
	p.pb->endpoint.from.v4.s_addr = 0x01020304;
	pair_send_ab(&p, 1);
	free(expect_sent(p.a, WIRE_DATA));
	run_alone(p.a, SECONDS(14.9));
	expect_silence(p.a);
	run_alone(p.a, SECONDS(0.5));
	struct datagram *d = expect_sent(p.a, WIRE_INITIATION);
	cr_assert_eq(d->to.from.v4.s_addr, 0, "the pinned source may be why");
	free(d);
}

Test(timers, the_15_s_count_from_the_first_unanswered_packet)
{
	pair_connect(&p);
	for (unsigned i = 0; i < 14; i++) {
		pair_send_ab(&p, i);
		run_alone(p.a, SECONDS(1));
	}
	cr_assert_eq(discard_sent(p.a, WIRE_INITIATION), 0);
	run_alone(p.a, SECONDS(1.5));
	cr_assert_eq(discard_sent(p.a, WIRE_INITIATION), 1);
}

Test(timers, any_answer_stops_the_15_s)
{
	pair_connect(&p);
	pair_send_ab(&p, 1);
	pair_exchange(&p);
	pair_run(&p, SECONDS(5));
	pair_send_ba(&p, 2);
	pair_exchange(&p);
	/* This one is on its own. */
	pair_send_ab(&p, 3);
	free(expect_sent(p.a, WIRE_DATA));
	run_alone(p.a, SECONDS(14.9));
	expect_silence(p.a);
	run_alone(p.a, SECONDS(0.5));
	free(expect_sent(p.a, WIRE_INITIATION));
}

Test(timers, a_keepalive_of_ours_expects_no_answer)
{
	pair_connect(&p);
	pair_run(&p, SECONDS(30));
	egress_keepalive(&p.a->dev, p.pb);
	node_settle(p.a);
	free(expect_sent(p.a, WIRE_DATA));
	run_alone(p.a, SECONDS(100));
	expect_silence(p.a);
}

Test(timers, steady_traffic_does_not_touch_the_heap)
{
	pair_connect(&p);
	pair_send_ab(&p, 0);
	pair_exchange(&p);
	const uint64_t armed = p.pb->deadline_ns[TIMER_NEW_HANDSHAKE], filed = p.pb->timer_key_ns;
	cr_assert(armed);
	for (unsigned i = 1; i < 10; i++) {
		pair_skip(&p, SECONDS(0.5));
		pair_send_ab(&p, i);
		pair_exchange(&p);
		pair_send_ba(&p, i);
		pair_exchange(&p);
		cr_assert_eq(p.pb->deadline_ns[TIMER_NEW_HANDSHAKE], armed);
		cr_assert_eq(p.pb->timer_key_ns, filed);
	}
}

/* ---- erasure ---- */

Test(timers, keys_are_erased_540_s_after_the_last_session)
{
	pair_connect(&p);
	const size_t with_session = secret_in_use();
	pair_run(&p, SECONDS(539));
	cr_assert(p.pb->current && p.pa->current);
	pair_run(&p, SECONDS(1.1));
	cr_assert(!p.pb->current && !p.pb->previous && !p.pb->next && !p.pb->handshake_session);
	cr_assert(!p.pa->current && !p.pa->previous && !p.pa->next);
	rcu_barrier();
	cr_assert_eq(secret_in_use(), with_session - 2 * sizeof(struct keypair));
}

Test(timers, what_failed_handshakes_leave_is_erased_too)
{
	static const uint8_t zero[NOISE_KEY_BYTES];

	handshake_initiate(&p.a->dev, p.pb, false);
	run_alone(p.a, SECONDS(100));
	discard_sent(p.a, WIRE_INITIATION);
	cr_assert_neq(p.pb->handshake.state, NOISE_ZEROED);
	run_alone(p.a, SECONDS(541));
	cr_assert_eq(p.pb->handshake.state, NOISE_ZEROED);
	cr_assert_arr_eq(p.pb->handshake.ephemeral_private, zero, sizeof(zero));
	cr_assert_arr_eq(p.pb->handshake.chaining_key, zero, sizeof(zero));
	cr_assert_null(p.pb->handshake_session);
}

Test(timers, erasure_leaves_a_handshake_under_way_alone)
{
	pair_connect(&p);
	pair_run(&p, SECONDS(538));
	pair_send_ab(&p, 1);
	struct datagram *d = expect_sent(p.a, WIRE_INITIATION);
	pair_skip(&p, SECONDS(2.5));
	node_run(p.a, p.now_ns);
	node_run(p.b, p.now_ns);
	cr_assert_null(p.pb->current);
	node_receive(p.b, d);
	free(d);
	pair_exchange(&p);
	cr_assert(p.pb->current);
	cr_assert_eq(delivered(p.b, NULL), 1);
}

/* ---- the heap, against a list ---- */

Test(timers, a_run_stops_after_so_many_peers_and_tells_that_there_is_more)
{
	enum { PEERS = 20 };

	for (unsigned i = 0; i < PEERS; i++) {
		uint8_t key[NOISE_KEY_BYTES];

		for (unsigned j = 0; j < sizeof(key); j++)
			key[j] = (uint8_t)random_u64();
		/* Expires to nothing: no interval is set. */
		timers_arm(&p.a->dev, node_add_peer(p.a, key, "", NULL), TIMER_PERSISTENT_KEEPALIVE,
			p.now_ns + SECONDS(1));
	}
	pair_skip(&p, SECONDS(2));
	for (unsigned left = PEERS; left > 8; left -= 8) {
		cr_assert_eq(p.a->dev.timers.nr, left);
		cr_assert_leq(timers_run(&p.a->dev, 8), p.now_ns);
	}
	cr_assert_eq(timers_run(&p.a->dev, 8), UINT64_MAX);
	cr_assert_eq(p.a->dev.timers.nr, 0);
}

Test(timers, heap_finds_the_earliest_of_many)
{
	enum { PEERS = 200 };
	struct peer *peers[PEERS];
	unsigned fired_late = 0;

	for (unsigned i = 0; i < PEERS; i++) {
		uint8_t key[NOISE_KEY_BYTES];

		for (unsigned j = 0; j < sizeof(key); j++)
			key[j] = (uint8_t)random_u64();
		peers[i] = node_add_peer(p.a, key, "", NULL);
	}
	for (unsigned step = 0; step < 20000; step++) {
		struct peer *peer = peers[random_below(PEERS)];
		/* Expires to nothing: no interval is set. */
		const enum peer_timer timer = TIMER_PERSISTENT_KEEPALIVE;

		switch (random_below(10)) {
		case 0:
			timers_cancel(peer, timer);
			break;
		case 1:
			timers_cancel_all(&p.a->dev, peer);
			break;
		case 2: {
			pair_skip(&p, random_below(NS_PER_SEC));
			const uint64_t next_ns = timers_run(&p.a->dev, UINT_MAX);
			uint64_t earliest_ns = UINT64_MAX;

			for (unsigned i = 0; i < PEERS; i++) {
				if (peers[i]->deadline_ns[timer])
					earliest_ns = MIN(earliest_ns, peers[i]->deadline_ns[timer]);
				fired_late += peers[i]->deadline_ns[timer] &&
					      peers[i]->deadline_ns[timer] <= p.now_ns;
				cr_assert(peers[i]->timer_slot == UINT_MAX ||
					  p.a->dev.timers.heap[peers[i]->timer_slot] == peers[i]);
				cr_assert(!peers[i]->deadline_ns[timer] || peers[i]->timer_slot != UINT_MAX);
			}
			cr_assert_leq(next_ns, earliest_ns);
			cr_assert_gt(next_ns, p.now_ns);
			cr_assert_eq(fired_late, 0);
			break;
		}
		default:
			timers_arm(&p.a->dev, peer, timer, p.now_ns + 1 + random_below(10 * NS_PER_SEC));
			break;
		}
	}
}

/* In every build: the heap's end is the end of its memory. */
Test(timers, one_peer_more_than_the_heap_holds_aborts, .signal = SIGABRT)
{
	struct device *dev = &p.a->dev;

	timers_cancel_all(dev, p.pb);
	dev->timers.capacity = dev->timers.nr;
	timers_arm(dev, p.pb, TIMER_START, dev->now_ns);
}
