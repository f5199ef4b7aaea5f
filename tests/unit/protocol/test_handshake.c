#include "core/protocol/handshake.h"
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

TestSuite(handshake, .init = init, .fini = done);

static void initiate(struct node *node)
{
	handshake_initiate(&node->dev, node_peer(node), false);
	node_settle(node);
}

/* A datagram as if it came from there. */
static struct datagram *readdressed(const struct datagram *d, const char *from)
{
	struct datagram *copy = datagram_copy(d);

	cr_assert_eq(endpoint_parse(&copy->from, from), 0);
	return copy;
}

static void receive_and_free(struct node *node, struct datagram *d)
{
	node_receive(node, d);
	free(d);
}

/* Gives the message a good mac1: whoever knows the public key of the receiver can. */
static void sign_for(struct node *receiver, struct datagram *d)
{
	struct cookie_jar jar;

	cookie_jar_init(&jar, receiver->dev.identity.public_key);
	cookie_jar_sign(&jar, d->data, d->len, p.now_ns);
}

/* Fills the handshake queue of node with messages that have a good mac1 but are worthless, up to the load
 * mark and over. */
static void crowd(struct node *node, unsigned nr)
{
	struct datagram *d = calloc(1, sizeof(*d) + sizeof(struct wire_initiation));

	cr_assert_eq(endpoint_parse(&d->from, "198.51.100.1:666"), 0);
	d->len = sizeof(struct wire_initiation);
	store_le32(d->data, WIRE_INITIATION);
	sign_for(node, d);
	for (unsigned i = 0; i < nr; i++)
		node_queue(node, d);
	free(d);
}

/* ---- both roles ---- */

Test(handshake, completes_in_one_round_trip_and_the_initiator_confirms_at_once)
{
	initiate(p.a);
	struct datagram *initiation = expect_sent(p.a, WIRE_INITIATION);
	cr_assert_eq(initiation->tos, TOS_HANDSHAKE);
	receive_and_free(p.b, initiation);

	struct datagram *response = expect_sent(p.b, WIRE_RESPONSE);
	cr_assert_eq(response->tos, TOS_HANDSHAKE);
	cr_assert(!p.pa->current && p.pa->next, "the responder must wait for confirmation");
	cr_assert_eq(p.pa->last_handshake_realtime_ns, 0);
	receive_and_free(p.a, response);

	struct datagram *keepalive = expect_sent(p.a, WIRE_DATA);
	cr_assert_eq(keepalive->len, WIRE_DATA_OVERHEAD);
	cr_assert_eq(keepalive->tos, 0);
	cr_assert_eq(p.pb->last_handshake_realtime_ns, p.a->dev.realtime_ns);
	receive_and_free(p.b, keepalive);
	cr_assert(p.pa->current && !p.pa->next);
	cr_assert_eq(p.pa->last_handshake_realtime_ns, p.b->dev.realtime_ns);
	expect_silence(p.b);
	cr_assert_eq(counter_read(&p.a->dev.counters.handshakes_completed), 1);
	cr_assert_eq(counter_read(&p.b->dev.counters.handshakes_completed), 1);
}

Test(handshake, staged_packets_go_out_in_order_instead_of_the_keepalive)
{
	uint64_t id = 0;

	for (unsigned i = 1; i <= 3; i++)
		pair_send_ab(&p, i);
	receive_and_free(p.b, expect_sent(p.a, WIRE_INITIATION));
	receive_and_free(p.a, expect_sent(p.b, WIRE_RESPONSE));
	for (unsigned i = 1; i <= 3; i++) {
		struct datagram *d = node_take(p.a);

		cr_assert(d && datagram_type(d) == WIRE_DATA);
		receive_and_free(p.b, d);
		cr_assert_eq(delivered(p.b, &id), 1);
		cr_assert_eq(id, i);
	}
	expect_silence(p.a);
}

Test(handshake, responder_sends_what_it_has_staged_once_confirmed_and_not_before)
{
	initiate(p.a);
	receive_and_free(p.b, expect_sent(p.a, WIRE_INITIATION));
	struct datagram *response = expect_sent(p.b, WIRE_RESPONSE);
	pair_send_ba(&p, 9);
	expect_silence(p.b);
	receive_and_free(p.a, response);
	receive_and_free(p.b, expect_sent(p.a, WIRE_DATA));
	receive_and_free(p.a, expect_sent(p.b, WIRE_DATA));
	cr_assert_eq(delivered(p.a, NULL), 1);
}

Test(handshake, bytes_of_handshakes_are_counted_as_wg_shows_them)
{
	pair_connect(&p);
	cr_assert_eq(p.pb->tx_bytes, 148 + 32);
	cr_assert_eq(p.pb->rx_bytes + p.pb->rx_handshake_bytes, 92);
	cr_assert_eq(p.pa->tx_bytes, 92);
	cr_assert_eq(p.pa->rx_bytes + p.pa->rx_handshake_bytes, 148 + 32);
}

Test(handshake, simultaneous_initiations_still_end_in_a_session)
{
	pair_send_ab(&p, 1);
	pair_send_ba(&p, 2);
	struct datagram *from_a = expect_sent(p.a, WIRE_INITIATION),
			*from_b = expect_sent(p.b, WIRE_INITIATION);
	receive_and_free(p.b, from_a);
	receive_and_free(p.a, from_b);
	pair_exchange(&p);
	/* Each gave up its own for the other's: a retry, out of step by the jitter, settles it. */
	pair_run(&p, 2 * (REKEY_TIMEOUT_NS + REKEY_TIMEOUT_JITTER_NS));
	cr_assert(p.pa->current && p.pb->current);
	cr_assert_eq(delivered(p.a, NULL), 1);
	cr_assert_eq(delivered(p.b, NULL), 1);
}

Test(handshake, needs_the_same_preshared_key_from_the_next_handshake_on)
{
	const uint8_t psk[NOISE_KEY_BYTES] = {7};

	pair_connect(&p);
	device_set_preshared(&p.a->dev, p.pb, psk);
	pair_send_ab(&p, 1);
	pair_exchange(&p);
	cr_assert_eq(delivered(p.b, NULL), 1, "a session that exists goes on");
	pair_skip(&p, SECONDS(6));
	initiate(p.a);
	pair_exchange(&p);
	cr_assert_eq(counter_read(&p.a->dev.counters.handshakes_completed), 1);
	cr_assert_eq(node_drops(p.a, DROP_HANDSHAKE_BAD_CRYPTO), 1);
	device_set_preshared(&p.b->dev, p.pa, psk);
	pair_skip(&p, SECONDS(6));
	initiate(p.a);
	pair_exchange(&p);
	cr_assert_eq(counter_read(&p.a->dev.counters.handshakes_completed), 2);
}

/* ---- what is said of those that are refused ---- */

/* Exactly these messages, one a line. */
static void expect_logged(const char *const *messages, unsigned nr)
{
	const char *text = log_captured(), *line = text;

	for (unsigned i = 0; i < nr; i++) {
		const size_t len = strcspn(line, "\n");
		const char *message = strstr(line, messages[i]);

		cr_assert(message && message + strlen(messages[i]) == line + len, "no \"%s\" in:\n%s",
			messages[i], text);
		line += len + 1;
	}
	cr_assert_str_empty(line);
}

Test(handshake, sender_with_a_wrong_key_for_us_is_named)
{
	const char *const message[] = {" info  handshake: initiation from 192.0.2.1:1001 refused: not made "
				       "for our public key (bad mac1)"};

	log_capture("info");
	node_set_random_key(p.b);
	initiate(p.a);
	receive_and_free(p.b, expect_sent(p.a, WIRE_INITIATION));
	cr_assert_eq(node_drops(p.b, DROP_HANDSHAKE_BAD_MAC1), 1);
	expect_logged(message, 1);
}

Test(handshake, key_that_is_no_peer_is_named)
{
	struct node *stranger = node_new("192.0.2.3:1003");
	char name[PEER_NAME_BYTES], message[256];

	node_set_random_key(stranger);
	node_add_peer(stranger, p.b->dev.identity.public_key, ADDRESS_B, NULL);
	device_up(&stranger->dev);
	log_capture("info");
	initiate(stranger);
	receive_and_free(p.b, expect_sent(stranger, WIRE_INITIATION));
	snprintf(message, sizeof(message),
		" info  handshake: initiation from 192.0.2.3:1003 refused: %s is no peer of ours",
		peer_key_name(stranger->dev.identity.public_key, name));
	expect_logged((const char *const[]){message}, 1);
	node_free(stranger);
}

Test(handshake, peer_with_another_preshared_key_is_named)
{
	const uint8_t psk[NOISE_KEY_BYTES] = {7};
	char name[PEER_NAME_BYTES], message[256];

	device_set_preshared(&p.a->dev, p.pb, psk);
	log_capture("info");
	initiate(p.a);
	pair_exchange(&p);
	snprintf(message, sizeof(message),
		" info  handshake: %s: response from 192.0.2.2:1002 refused: %s; compare keys and preshared "
		"keys "
		"of both ends",
		peer_name(p.pb, name), drop_text(DROP_HANDSHAKE_BAD_CRYPTO));
	expect_logged((const char *const[]){message}, 1);
}

Test(handshake, repeated_messages_are_told_to_those_who_look_closer)
{
	char name[PEER_NAME_BYTES], replay[256];

	initiate(p.a);
	struct datagram *initiation = expect_sent(p.a, WIRE_INITIATION);
	node_receive(p.b, initiation);
	struct datagram *response = expect_sent(p.b, WIRE_RESPONSE);
	node_receive(p.a, response);
	log_capture("info");
	node_receive(p.b, initiation);
	node_receive(p.a, response);
	expect_logged(NULL, 0);
	log_capture("handshake=debug");
	receive_and_free(p.b, initiation);
	snprintf(replay, sizeof(replay),
		" debug handshake: %s: initiation from 192.0.2.1:1001 refused: timestamp not newer than the "
		"last "
		"accepted",
		peer_name(p.pa, name));
	expect_logged((const char *const[]){replay}, 1);
	receive_and_free(p.a, response);
	expect_logged(
		(const char *const[]){" debug handshake: response from 192.0.2.2:1002 refused: response or "
				      "cookie reply that answers nothing of ours"},
		1);
	while (p.a->sent)
		free(node_take(p.a));
}

/* ---- what must not be answered ---- */

Test(handshake, replayed_initiation_is_dropped)
{
	initiate(p.a);
	struct datagram *d = expect_sent(p.a, WIRE_INITIATION);
	node_receive(p.b, d);
	free(expect_sent(p.b, WIRE_RESPONSE));
	pair_skip(&p, SECONDS(60));
	receive_and_free(p.b, d);
	expect_silence(p.b);
	cr_assert_eq(node_drops(p.b, DROP_HANDSHAKE_REPLAY), 1);
}

Test(handshake, older_initiation_is_dropped_after_a_newer_one)
{
	initiate(p.a);
	struct datagram *older = expect_sent(p.a, WIRE_INITIATION);
	pair_skip(&p, SECONDS(6));
	initiate(p.a);
	receive_and_free(p.b, expect_sent(p.a, WIRE_INITIATION));
	free(expect_sent(p.b, WIRE_RESPONSE));
	pair_skip(&p, SECONDS(1));
	receive_and_free(p.b, older);
	expect_silence(p.b);
	cr_assert_eq(node_drops(p.b, DROP_HANDSHAKE_REPLAY), 1);
}

Test(handshake, initiations_within_20_ms_of_each_other_are_a_flood)
{
	initiate(p.a);
	struct datagram *first = expect_sent(p.a, WIRE_INITIATION);
	pair_skip(&p, SECONDS(6));
	initiate(p.a);
	struct datagram *second = expect_sent(p.a, WIRE_INITIATION);
	receive_and_free(p.b, first);
	free(expect_sent(p.b, WIRE_RESPONSE));
	pair_skip(&p, 19 * NS_PER_MS);
	node_receive(p.b, second);
	expect_silence(p.b);
	cr_assert_eq(node_drops(p.b, DROP_HANDSHAKE_FLOOD), 1);
	pair_skip(&p, 1 * NS_PER_MS);
	receive_and_free(p.b, second);
	free(expect_sent(p.b, WIRE_RESPONSE));
}

Test(handshake, response_counts_once)
{
	initiate(p.a);
	receive_and_free(p.b, expect_sent(p.a, WIRE_INITIATION));
	struct datagram *d = expect_sent(p.b, WIRE_RESPONSE);
	node_receive(p.a, d);
	free(expect_sent(p.a, WIRE_DATA));
	const struct session *session = p.pb->current;
	receive_and_free(p.a, d);
	expect_silence(p.a);
	cr_assert_eq(p.pb->current, session);
	cr_assert_eq(node_drops(p.a, DROP_HANDSHAKE_UNEXPECTED), 1);
}

Test(handshake, response_to_an_initiation_that_was_superseded_is_dropped)
{
	initiate(p.a);
	receive_and_free(p.b, expect_sent(p.a, WIRE_INITIATION));
	struct datagram *late = expect_sent(p.b, WIRE_RESPONSE);
	pair_skip(&p, SECONDS(6));
	initiate(p.a);
	free(expect_sent(p.a, WIRE_INITIATION));
	receive_and_free(p.a, late);
	expect_silence(p.a);
	cr_assert_null(p.pb->current);
}

Test(handshake, every_flipped_bit_of_an_initiation_or_response_is_met_by_silence)
{
	initiate(p.a);
	struct datagram *d = expect_sent(p.a, WIRE_INITIATION);
	for (uint32_t bit = 32; bit < (d->len - WIRE_MAC_BYTES) * 8; bit++) {
		d->data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		node_receive(p.b, d);
		expect_silence(p.b);
		d->data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	cr_assert_eq(node_drops(p.b, DROP_HANDSHAKE_BAD_MAC1), (148 - 16 - 4) * 8);
	receive_and_free(p.b, d);

	d = expect_sent(p.b, WIRE_RESPONSE);
	for (uint32_t bit = 32; bit < (d->len - WIRE_MAC_BYTES) * 8; bit++) {
		d->data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		node_receive(p.a, d);
		expect_silence(p.a);
		d->data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	receive_and_free(p.a, d);
	free(expect_sent(p.a, WIRE_DATA));
}

Test(handshake, forged_contents_under_a_good_mac1_do_not_authenticate)
{
	initiate(p.a);
	struct datagram *d = expect_sent(p.a, WIRE_INITIATION);
	for (uint32_t at = 8; at < offsetof(struct wire_initiation, mac1); at += 7) {
		struct datagram *forged = datagram_copy(d);

		forged->data[at] ^= 0x10;
		sign_for(p.b, forged);
		receive_and_free(p.b, forged);
		expect_silence(p.b);
	}
	cr_assert_eq(node_drops(p.b, DROP_HANDSHAKE_BAD_MAC1), 0);
	cr_assert_gt(node_drops(p.b, DROP_HANDSHAKE_BAD_CRYPTO), 0);
	receive_and_free(p.b, d);

	/* A forged response must not spoil the handshake for the true one. */
	d = expect_sent(p.b, WIRE_RESPONSE);
	struct datagram *forged = datagram_copy(d);
	forged->data[offsetof(struct wire_response, empty)] ^= 1;
	sign_for(p.a, forged);
	receive_and_free(p.a, forged);
	expect_silence(p.a);
	receive_and_free(p.a, d);
	free(expect_sent(p.a, WIRE_DATA));
}

Test(handshake, initiation_from_a_key_that_is_no_peer_is_met_by_silence)
{
	struct node *stranger = node_new("192.0.2.3:1003");

	node_set_random_key(stranger);
	node_add_peer(stranger, p.b->dev.identity.public_key, ADDRESS_B, NULL);
	device_up(&stranger->dev);
	initiate(stranger);
	receive_and_free(p.b, expect_sent(stranger, WIRE_INITIATION));
	expect_silence(p.b);
	cr_assert_eq(node_drops(p.b, DROP_HANDSHAKE_UNKNOWN_PEER), 1);
	node_free(stranger);
}

Test(handshake, low_order_public_keys_never_elicit_a_packet)
{
	/* The seven points of small order, as little-endian u coordinates. */
	static const uint8_t points[][NOISE_KEY_BYTES] = {
		{0},
		{1},
		{0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
			0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f,
			0x49, 0xb8, 0x00},
		{0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
			0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0,
			0x9f, 0x11, 0x57},
		{0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
			0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
			0xff, 0xff, 0x7f},
		{0xed, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
			0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
			0xff, 0xff, 0x7f},
		{0xee, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
			0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
			0xff, 0xff, 0x7f},
	};

	for (unsigned i = 0; i < ARRAY_LEN(points); i++) {
		struct peer *peer = node_add_peer(p.a, points[i], "192.0.2.9:9", "10.0.0.9/32");
		uint8_t packet[64];

		device_set_persistent_keepalive(&p.a->dev, peer, 1);
		node_tun_packet(p.a, packet, packet_make(packet, "10.0.0.1", "10.0.0.9", 1, sizeof(packet)));
		pair_run(&p, SECONDS(30));
		expect_silence(p.a);
		device_remove_peer(&p.a->dev, peer);
	}
}

Test(handshake, is_silent_while_down_or_without_a_private_key)
{
	const uint8_t none[NOISE_KEY_BYTES] = {0};

	initiate(p.a);
	struct datagram *d = expect_sent(p.a, WIRE_INITIATION);
	device_down(&p.b->dev);
	node_receive(p.b, d);
	expect_silence(p.b);
	pair_send_ba(&p, 1);
	initiate(p.b);
	expect_silence(p.b);
	device_up(&p.b->dev);
	device_set_private_key(&p.b->dev, none);
	node_receive(p.b, d);
	expect_silence(p.b);
	cr_assert_eq(node_drops(p.b, DROP_HANDSHAKE_DOWN), 1);
	initiate(p.b);
	expect_silence(p.b);
	free(d);
}

Test(handshake, removed_peer_races_its_response)
{
	initiate(p.a);
	receive_and_free(p.b, expect_sent(p.a, WIRE_INITIATION));
	struct datagram *response = expect_sent(p.b, WIRE_RESPONSE);
	device_remove_peer(&p.a->dev, p.pb);
	receive_and_free(p.a, response);
	expect_silence(p.a);
	cr_assert_eq(node_drops(p.a, DROP_HANDSHAKE_UNEXPECTED), 1);
	rcu_quiescent_state();
	rcu_barrier();
	/* Whatever timers it had are gone, too. */
	pair_run(&p, SECONDS(600));
	expect_silence(p.a);
}

/* ---- timing of initiations ---- */

Test(handshake, initiations_are_held_5_s_after_the_last_one)
{
	initiate(p.a);
	free(expect_sent(p.a, WIRE_INITIATION));
	pair_skip(&p, SECONDS(5) - 1);
	initiate(p.a);
	expect_silence(p.a);
	pair_skip(&p, REKEY_TIMEOUT_JITTER_NS + 1);
	initiate(p.a);
	free(expect_sent(p.a, WIRE_INITIATION));
}

Test(handshake, initiations_are_held_5_s_after_a_response_too)
{
	initiate(p.b);
	receive_and_free(p.a, expect_sent(p.b, WIRE_INITIATION));
	free(expect_sent(p.a, WIRE_RESPONSE));
	pair_skip(&p, SECONDS(5) - 1);
	initiate(p.a);
	expect_silence(p.a);
	pair_skip(&p, REKEY_TIMEOUT_JITTER_NS + 1);
	initiate(p.a);
	free(expect_sent(p.a, WIRE_INITIATION));
}

/* Else two ends whose initiations crossed would hold and start again in step, and cross for ever. */
Test(handshake, the_hold_after_a_response_is_jittered)
{
	uint64_t least = UINT64_MAX, most = 0;

	for (unsigned i = 0; i < 32; i++) {
		initiate(p.b);
		receive_and_free(p.a, expect_sent(p.b, WIRE_INITIATION));
		free(expect_sent(p.a, WIRE_RESPONSE));
		const uint64_t hold_ns = p.pb->initiation_held_until_ns - p.now_ns;

		cr_assert(
			hold_ns >= REKEY_TIMEOUT_NS && hold_ns <= REKEY_TIMEOUT_NS + REKEY_TIMEOUT_JITTER_NS);
		least = MIN(least, hold_ns);
		most = MAX(most, hold_ns);
		pair_skip(&p, SECONDS(6));
	}
	cr_assert(most - least > REKEY_TIMEOUT_JITTER_NS / 10);
}

Test(handshake, a_wall_clock_set_back_does_not_silence_us)
{
	pair_connect(&p);
	p.a->realtime_offset_ns = -SECONDS(86400);
	pair_skip(&p, SECONDS(6));
	node_run(p.a, p.now_ns);
	initiate(p.a);
	receive_and_free(p.b, expect_sent(p.a, WIRE_INITIATION));
	free(expect_sent(p.b, WIRE_RESPONSE));
}

/* ---- roaming ---- */

Test(handshake, both_kinds_of_authenticated_message_move_the_endpoint)
{
	struct endpoint e;

	initiate(p.a);
	struct datagram *d = expect_sent(p.a, WIRE_INITIATION);
	receive_and_free(p.b, readdressed(d, "203.0.113.7:7"));
	free(d);
	cr_assert_eq(endpoint_parse(&e, "203.0.113.7:7"), 0);
	cr_assert(endpoint_same_to(&p.pa->endpoint, &e));

	d = expect_sent(p.b, WIRE_RESPONSE);
	cr_assert(endpoint_same_to(&d->to, &e), "the response goes where the initiation came from");
	receive_and_free(p.a, readdressed(d, "203.0.113.8:8"));
	free(d);
	cr_assert_eq(endpoint_parse(&e, "203.0.113.8:8"), 0);
	cr_assert(endpoint_same_to(&p.pb->endpoint, &e));
}

Test(handshake, replayed_messages_from_elsewhere_do_not_move_the_endpoint)
{
	initiate(p.a);
	struct datagram *d = expect_sent(p.a, WIRE_INITIATION);
	node_receive(p.b, d);
	free(expect_sent(p.b, WIRE_RESPONSE));
	const struct endpoint before = p.pa->endpoint;
	pair_skip(&p, SECONDS(1));
	receive_and_free(p.b, readdressed(d, "203.0.113.7:7"));
	free(d);
	cr_assert(endpoint_equal(&p.pa->endpoint, &before));
}

/* ---- load ---- */

Test(handshake, under_load_a_cookie_is_asked_for_and_then_honoured)
{
	initiate(p.a);
	struct datagram *d = expect_sent(p.a, WIRE_INITIATION);
	node_queue(p.b, d);
	crowd(p.b, HANDSHAKE_LOAD_MARK);
	node_handle_handshakes(p.b);

	/* One to a, the rest to the flooder. */
	struct datagram *cookie = node_take(p.b);
	cr_assert(cookie && datagram_type(cookie) == WIRE_COOKIE);
	cr_assert(endpoint_same_to(&cookie->to, &p.a->address));
	cr_assert_lt(cookie->len, d->len);
	discard_sent(p.b, WIRE_COOKIE);
	cr_assert_null(p.pa->next);
	free(d);

	/* Neither an answer nor a new endpoint comes of it, only the next initiation is different. */
	struct datagram *moved = readdressed(cookie, "203.0.113.7:7");
	const struct endpoint before = p.pb->endpoint;
	receive_and_free(p.a, moved);
	cr_assert(endpoint_equal(&p.pb->endpoint, &before));
	free(cookie);
	expect_silence(p.a);
	cr_assert_eq(p.pb->deadline_ns[TIMER_RETRANSMIT_HANDSHAKE] > p.now_ns, true);

	pair_skip(&p, SECONDS(5.4));
	node_run(p.a, p.now_ns);
	d = expect_sent(p.a, WIRE_INITIATION);
	node_queue(p.b, d);
	crowd(p.b, HANDSHAKE_LOAD_MARK);
	node_handle_handshakes(p.b);
	cr_assert_eq(datagram_type(p.b->sent), WIRE_RESPONSE, "a valid mac2 is served under load");
	free(d);
	discard_sent(p.b, WIRE_COOKIE);
}

Test(handshake, a_cookie_is_bound_to_address_and_port)
{
	initiate(p.a);
	struct datagram *d = expect_sent(p.a, WIRE_INITIATION);
	p.b->dev.under_load_until_ns = UINT64_MAX;
	receive_and_free(p.b, d);
	receive_and_free(p.a, expect_sent(p.b, WIRE_COOKIE));
	pair_skip(&p, SECONDS(5.4));
	node_run(p.a, p.now_ns);
	d = expect_sent(p.a, WIRE_INITIATION);
	receive_and_free(p.b, readdressed(d, "192.0.2.1:1999"));
	free(expect_sent(p.b, WIRE_COOKIE));
	receive_and_free(p.b, readdressed(d, "192.0.2.99:1001"));
	free(expect_sent(p.b, WIRE_COOKIE));
	receive_and_free(p.b, d);
	free(expect_sent(p.b, WIRE_RESPONSE));
}

Test(handshake, an_initiator_under_load_asks_for_a_cookie_in_responses)
{
	initiate(p.a);
	receive_and_free(p.b, expect_sent(p.a, WIRE_INITIATION));
	p.a->dev.under_load_until_ns = UINT64_MAX;
	receive_and_free(p.a, expect_sent(p.b, WIRE_RESPONSE));
	struct datagram *cookie = expect_sent(p.a, WIRE_COOKIE);
	cr_assert_lt(cookie->len, sizeof(struct wire_response));
	receive_and_free(p.b, cookie);
	cr_assert_eq(node_drops(p.b, DROP_HANDSHAKE_UNEXPECTED), 0);
	pair_skip(&p, SECONDS(5.4));
	node_run(p.a, p.now_ns);
	receive_and_free(p.b, expect_sent(p.a, WIRE_INITIATION));
	receive_and_free(p.a, expect_sent(p.b, WIRE_RESPONSE));
	free(expect_sent(p.a, WIRE_DATA));
}

Test(handshake, load_ends_a_second_after_the_queue_was_last_long)
{
	crowd(p.b, HANDSHAKE_LOAD_MARK + 1);
	node_handle_handshakes(p.b);
	discard_sent(p.b, WIRE_COOKIE);
	/* Single messages during that second are refused, but do not prolong it. */
	for (unsigned i = 0; i < 9; i++) {
		pair_skip(&p, 100 * NS_PER_MS);
		crowd(p.b, 1);
		node_handle_handshakes(p.b);
		free(expect_sent(p.b, WIRE_COOKIE));
	}
	pair_skip(&p, 100 * NS_PER_MS);
	initiate(p.a);
	receive_and_free(p.b, expect_sent(p.a, WIRE_INITIATION));
	free(expect_sent(p.b, WIRE_RESPONSE));
}

Test(handshake, one_message_below_the_mark_is_no_load)
{
	crowd(p.b, HANDSHAKE_LOAD_MARK);
	node_handle_handshakes(p.b);
	cr_assert_eq(discard_sent(p.b, WIRE_COOKIE), 0);
	crowd(p.b, HANDSHAKE_LOAD_MARK + 1);
	node_handle_handshakes(p.b);
	cr_assert_gt(discard_sent(p.b, WIRE_COOKIE), 0);
}

Test(handshake, junk_with_a_bad_mac1_puts_nobody_under_load)
{
	struct datagram *junk = calloc(1, sizeof(*junk) + sizeof(struct wire_initiation));

	cr_assert_eq(endpoint_parse(&junk->from, "198.51.100.1:666"), 0);
	junk->len = sizeof(struct wire_initiation);
	store_le32(junk->data, WIRE_INITIATION);
	for (unsigned i = 0; i < 4096; i++)
		node_queue(p.b, junk);
	node_handle_handshakes(p.b);
	free(junk);
	cr_assert_eq(node_drops(p.b, DROP_HANDSHAKE_BAD_MAC1), 4096);
	expect_silence(p.b);
	initiate(p.a);
	receive_and_free(p.b, expect_sent(p.a, WIRE_INITIATION));
	free(expect_sent(p.b, WIRE_RESPONSE));
}

Test(handshake, under_load_each_source_is_limited_even_with_a_valid_mac2)
{
	unsigned answered = 0;

	p.b->dev.under_load_until_ns = UINT64_MAX;
	initiate(p.a);
	receive_and_free(p.b, expect_sent(p.a, WIRE_INITIATION));
	receive_and_free(p.a, expect_sent(p.b, WIRE_COOKIE));
	/* All within a second: the hold is lifted for the test. */
	for (unsigned i = 0; i < 50; i++) {
		pair_skip(&p, 20 * NS_PER_MS);
		p.pb->initiation_held_until_ns = 0;
		initiate(p.a);
		receive_and_free(p.b, expect_sent(p.a, WIRE_INITIATION));
		answered += discard_sent(p.b, WIRE_RESPONSE);
	}
	cr_assert(
		answered >= RATELIMITER_PER_SECOND && answered <= RATELIMITER_PER_SECOND + RATELIMITER_BURST,
		"%u", answered);
	cr_assert_eq(node_drops(p.b, DROP_HANDSHAKE_RATE_LIMITED), 50 - answered);
}

Test(handshake, without_load_nobody_is_limited)
{
	for (unsigned i = 0; i < 50; i++) {
		pair_skip(&p, 20 * NS_PER_MS);
		p.pb->initiation_held_until_ns = 0;
		initiate(p.a);
		receive_and_free(p.b, expect_sent(p.a, WIRE_INITIATION));
		free(expect_sent(p.b, WIRE_RESPONSE));
	}
}

Test(handshake, unsolicited_cookies_are_dropped)
{
	struct datagram *d = calloc(1, sizeof(*d) + sizeof(struct wire_cookie));
	struct wire_cookie *cookie = (struct wire_cookie *)d->data;

	cr_assert_eq(endpoint_parse(&d->from, ADDRESS_B), 0);
	d->len = sizeof(*cookie);
	cookie->type = htole32(WIRE_COOKIE);
	node_receive(p.a, d);
	pair_connect(&p);
	cookie->receiver = htole32(p.pb->current->index);
	node_receive(p.a, d);
	cr_assert_eq(node_drops(p.a, DROP_HANDSHAKE_UNEXPECTED), 2);
	expect_silence(p.a);
	free(d);
}
