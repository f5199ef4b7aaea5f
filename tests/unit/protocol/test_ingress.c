#include "core/protocol/ingress.h"

#include <signal.h>

#include "core/base/log.h"
#include "tests/unit/protocol/support.h"

static struct pair p;

static void init(void)
{
	pair_init(&p);
	pair_connect(&p);
	/* Confirmed, and the state thread knows where both are. */
	pair_send_ab(&p, 1);
	pair_send_ba(&p, 2);
	pair_exchange(&p);
	cr_assert_eq(delivered(p.a, NULL) + delivered(p.b, NULL), 2);
}

static void done(void)
{
	pair_done(&p);
}

TestSuite(ingress, .init = init, .fini = done);

/* A data message from a as b receives it when a has moved to address. */
static struct datagram *data_from(const char *address)
{
	pair_send_ab(&p, 3);
	struct datagram *d = expect_sent(p.a, WIRE_DATA);

	cr_assert_eq(endpoint_parse(&d->from, address), 0);
	return d;
}

/* As far as the tun-tx thread takes it; the state thread has not come round yet. */
static void open_from(const char *address)
{
	struct datagram *d = data_from(address);

	node_dispatch(p.b, d);
	node_open(p.b);
	free(d);
}

static void fill_notes(void)
{
	while (mpsc_push(p.b->ingress.notes, note_encode(NOTE_REKEY, 0)))
		;
}

static void assert_endpoint(const struct endpoint *endpoint, const char *address)
{
	char text[ENDPOINT_STRLEN];

	cr_assert_str_eq(endpoint_format(endpoint, text), address);
}

Test(ingress, tells_the_state_thread_where_a_peer_has_moved)
{
	open_from("198.51.100.1:1");
	assert_endpoint(&p.pa->endpoint, ADDRESS_A);
	node_settle(p.b);
	assert_endpoint(&p.pa->endpoint, "198.51.100.1:1");
	open_from("198.51.100.2:2");
	node_settle(p.b);
	assert_endpoint(&p.pa->endpoint, "198.51.100.2:2");
}

Test(ingress, writes_no_mailbox_that_the_state_thread_may_be_reading)
{
	fill_notes();
	/* Announced, though the note that says so finds no room. */
	open_from("198.51.100.1:1");
	assert_endpoint(&p.pa->roamed, "198.51.100.1:1");
	/* Here the state thread, which has come for another reason, begins to copy it. */
	cr_assert(atomic_load(&p.pa->roamed_pending), "taken back while it may be read");
	open_from("198.51.100.2:2");
	assert_endpoint(&p.pa->roamed, "198.51.100.1:1");
	peer_take_roamed(p.pa);
	assert_endpoint(&p.pa->endpoint, "198.51.100.1:1");
	/* Read: now the newer one. */
	open_from("198.51.100.2:2");
	assert_endpoint(&p.pa->roamed, "198.51.100.2:2");
}

Test(ingress, repeats_a_refused_note_of_a_move_with_the_next_train)
{
	fill_notes();
	open_from("198.51.100.1:1");
	node_settle(p.b);
	assert_endpoint(&p.pa->endpoint, ADDRESS_A);
	/* Even from where the mailbox does not say: what it holds comes first. */
	open_from("198.51.100.2:2");
	node_settle(p.b);
	assert_endpoint(&p.pa->endpoint, "198.51.100.1:1");
	open_from("198.51.100.2:2");
	node_settle(p.b);
	assert_endpoint(&p.pa->endpoint, "198.51.100.2:2");
}

/* The state thread takes the move without a note; the peer is back where it was said to be before. */
Test(ingress, tells_of_a_return_from_a_move_whose_note_was_refused)
{
	open_from("198.51.100.1:1");
	node_settle(p.b);
	assert_endpoint(&p.pa->endpoint, "198.51.100.1:1");
	fill_notes();
	open_from("198.51.100.2:2");
	peer_take_roamed(p.pa);
	assert_endpoint(&p.pa->endpoint, "198.51.100.2:2");
	node_settle(p.b);
	open_from("198.51.100.1:1");
	node_settle(p.b);
	assert_endpoint(&p.pa->endpoint, "198.51.100.1:1");
}

/* The same when it is back before the state thread comes: what the mailbox holds is taken, and then replaced. */
Test(ingress, tells_of_a_return_while_the_move_still_waits)
{
	open_from("198.51.100.1:1");
	node_settle(p.b);
	fill_notes();
	open_from("198.51.100.2:2");
	node_settle(p.b);
	open_from("198.51.100.1:1");
	node_settle(p.b);
	open_from("198.51.100.1:1");
	node_settle(p.b);
	assert_endpoint(&p.pa->endpoint, "198.51.100.1:1");
	cr_assert(!atomic_load(&p.pa->roamed_pending), "an old move is left for the state thread to find");
}

Test(ingress, gives_one_note_for_a_move_however_many_trains_follow)
{
	open_from("198.51.100.1:1");
	const unsigned notes = channel_len(&p.b->notes_ring);

	cr_assert_gt(notes, 0);
	for (unsigned i = 0; i < 10; i++) {
		open_from("198.51.100.1:1");
		open_from("198.51.100.2:2");
	}
	cr_assert_eq(channel_len(&p.b->notes_ring), notes);
	node_settle(p.b);
	assert_endpoint(&p.pa->endpoint, "198.51.100.1:1");
}

Test(ingress, a_configured_endpoint_wins_over_a_move_whose_note_was_refused)
{
	struct endpoint e;

	fill_notes();
	open_from("198.51.100.1:1");
	cr_assert_eq(endpoint_parse(&e, "192.0.2.99:99"), 0);
	device_set_endpoint(&p.b->dev, p.pa, &e);
	node_settle(p.b);
	assert_endpoint(&p.pa->endpoint, "192.0.2.99:99");
	/* What comes after the configuration counts again. */
	open_from("198.51.100.1:1");
	node_settle(p.b);
	assert_endpoint(&p.pa->endpoint, "198.51.100.1:1");
}

/* a's packets come to b's address, on this interface of b. */
static void hear(int ifindex)
{
	struct datagram *d = data_from(ADDRESS_A);

	d->from.arrival_ifindex = ifindex;
	node_receive(p.b, d);
	free(d);
}

Test(ingress, tells_of_packets_that_come_in_on_another_interface)
{
	hear(3);
	cr_assert_eq(p.pa->endpoint.arrival_ifindex, 3);
	hear(4);
	cr_assert_eq(p.pa->endpoint.arrival_ifindex, 4);
	cr_assert(endpoint_is_pinned(&p.pa->endpoint));
}

Test(ingress, tells_nothing_new_of_a_source_that_is_barred)
{
	hear(3);
	const struct endpoint before = p.pa->endpoint;

	peer_bar_source(p.pa, &before);
	cr_assert_not(endpoint_is_pinned(&p.pa->endpoint));
	cr_assert(endpoint_same_to(&p.pa->endpoint, &before));
	for (unsigned i = 0; i < 3; i++) {
		struct datagram *d = data_from(ADDRESS_A);

		d->from.arrival_ifindex = 3;
		node_dispatch(p.b, d);
		node_open(p.b);
		cr_assert_not(atomic_load(&p.pa->roamed_pending), "told again");
		free(d);
		node_settle(p.b);
		cr_assert_not(endpoint_is_pinned(&p.pa->endpoint));
	}
	peer_unbar_source(p.pa, &before);
	cr_assert_not(endpoint_is_pinned(&p.pa->endpoint), "the address may have gone meanwhile");
	hear(3);
	cr_assert(endpoint_same_arrival(&p.pa->endpoint, &before));
}

Test(ingress, source_outside_the_allowed_ips_is_named)
{
	const struct ip_prefix prefix = prefix_of("10.0.0.1/32");
	char name[PEER_NAME_BYTES], message[256];

	cr_assert(allowed_ips_remove(&p.b->dev.allowed_ips, &prefix, p.pa));
	log_capture("info");
	open_from("198.51.100.1:1");
	cr_assert_eq(node_drops(p.b, DROP_INGRESS_NOT_ALLOWED), 1);
	snprintf(message, sizeof(message),
		" info  peer: %s: packet from 198.51.100.1:1 refused: its inner source 10.0.0.1 is not in "
		"the "
		"allowed IPs of this peer\n",
		peer_name(p.pa, name));
	const char *text = log_captured();
	cr_assert(strstr(text, message) && strchr(text, '\n')[1] == '\0', "%s", text);
	/* However many more come. */
	for (unsigned i = 0; i < 100; i++)
		open_from("198.51.100.1:1");
	text = log_captured();
	unsigned lines = 0;
	for (const char *c = text; *c; c++)
		lines += *c == '\n';
	/* The window may end once meanwhile. */
	cr_assert_lt(lines, 2 * LOG_LIMIT_BURST, "%s", text);
}

Test(ingress, sender_of_forged_data_is_told_to_those_who_look_closer)
{
	struct datagram *d = data_from("198.51.100.1:1");
	char name[PEER_NAME_BYTES], message[256];

	d->data[d->len - 1] ^= 1;
	log_capture("info");
	node_receive(p.b, d);
	cr_assert_str_empty(log_captured());
	log_capture("peer=debug");
	node_receive(p.b, d);
	cr_assert_eq(node_drops(p.b, DROP_INGRESS_BAD_TAG), 2);
	snprintf(message, sizeof(message),
		" debug peer: %s: data message from 198.51.100.1:1 refused: it does not authenticate\n",
		peer_name(p.pa, name));
	cr_assert(strstr(log_captured(), message));
	free(d);
}

#ifndef NDEBUG
Test(ingress, opens_nothing_without_the_baton_of_its_thread, .signal = SIGABRT)
{
	static struct park park;
	static struct baton baton;

	park_init(&park);
	baton_init(&baton, &park);
	p.b->ingress.baton = &baton;
	cr_assert(baton_try(&baton));
	open_from(ADDRESS_A);
	cr_assert_eq(delivered(p.b, NULL), 1);
	baton_pass(&baton);
	open_from(ADDRESS_A);
}
#endif

/*
 * Between sorting and opening the session is retired, and a new one gets its random index but another owner.
 * Opening it here would let two threads at its replay window. (The keys stay the same here, so that nothing
 * else can be what refuses it.)
 */
Test(ingress, opens_no_session_of_another_owner)
{
	struct session *session = p.pa->current ? p.pa->current : p.pa->next;
	struct datagram *d = data_from(ADDRESS_A);
	const uint64_t next = session->keypair->replay.next, rx_bytes = p.pa->rx_bytes;

	node_dispatch(p.b, d);
	session->owner = 1;
	node_open(p.b);
	cr_assert_eq(delivered(p.b, NULL), 0);
	cr_assert_eq(node_drops(p.b, DROP_INGRESS_UNKNOWN_INDEX), 1);
	cr_assert_eq(session->keypair->replay.next, next);
	cr_assert_eq(p.pa->rx_bytes, rx_bytes);
	/* And its own thread still can. */
	session->owner = 0;
	node_receive(p.b, d);
	cr_assert_eq(delivered(p.b, NULL), 1);
	free(d);
}
