#include "core/protocol/peer.h"
#include "tests/unit/protocol/support.h"

static struct node *node;
static struct peer *peer;

static void init(void)
{
	const uint8_t key[NOISE_KEY_BYTES] = {1};

	state_init();
	node = node_new(ADDRESS_A);
	peer = node_add_peer(node, key, "", NULL);
}

static void done(void)
{
	node_free(node);
	cr_assert_eq(secret_in_use(), 0);
}

TestSuite(peer, .init = init, .fini = done);

static struct session *session_new(bool initiator)
{
	struct session *e = session_table_add(&node->dev.sessions, peer, 0);
	struct keypair *k = keypair_new();

	cr_assert(e && k);
	k->initiator = initiator;
	session_table_set_keypair(e, k);
	return e;
}

Test(peer, name_shows_only_the_ends_of_the_key)
{
	char name[PEER_NAME_BYTES];

	/* base64 of 01 00 ... 00 is AQAA...AAA= */
	cr_assert_str_eq(peer_name(peer, name), "peer(AQAA...AAAA)");
}

Test(peer, initiators_session_is_current_at_once)
{
	struct session *s = session_new(true), *t = session_new(true);

	peer_add_session(&node->dev, peer, s);
	cr_assert(peer->current == s && !peer->previous && !peer->next);
	peer_add_session(&node->dev, peer, t);
	cr_assert(peer->current == t && peer->previous == s && !peer->next);
}

Test(peer, responders_session_waits_as_next_until_confirmed)
{
	struct session *s = session_new(false), *t = session_new(false);

	peer_add_session(&node->dev, peer, s);
	cr_assert(!peer->current && peer->next == s);
	cr_assert(peer_confirm_session(&node->dev, peer, s));
	cr_assert(peer->current == s && !peer->next);
	cr_assert(!peer_confirm_session(&node->dev, peer, s), "confirmed twice");
	peer_add_session(&node->dev, peer, t);
	cr_assert(
		peer->current == s && peer->next == t, "the old one goes on until the new one is confirmed");
	cr_assert(peer_confirm_session(&node->dev, peer, t));
	cr_assert(peer->current == t && peer->previous == s);
}

Test(peer, unconfirmed_next_gives_way_to_a_newer_one)
{
	struct session *s = session_new(false), *t = session_new(false);
	const uint32_t index = s->index;

	peer_add_session(&node->dev, peer, s);
	peer_add_session(&node->dev, peer, t);
	cr_assert_eq(peer->next, t);
	cr_assert_null(session_table_find(&node->dev.sessions, index));
}

Test(peer, unconfirmed_next_becomes_previous_when_we_complete_as_initiator)
{
	struct session *old = session_new(true), *next = session_new(false), *mine = session_new(true);
	const uint32_t index = old->index;

	peer_add_session(&node->dev, peer, old);
	peer_add_session(&node->dev, peer, next);
	peer_add_session(&node->dev, peer, mine);
	cr_assert(peer->current == mine && peer->previous == next && !peer->next);
	cr_assert_null(session_table_find(&node->dev.sessions, index), "the one before must be gone");
}

/* Against three plain numbers moved by the rules of the kernel driver, with the sets of indices that must be
 * alive. */
Test(peer, rotation_agrees_with_a_naive_model)
{
	struct session *previous = NULL, *current = NULL, *next = NULL;

	for (unsigned i = 0; i < 5000; i++) {
		struct session *was[3] = {previous, current, next};
		const uint32_t was_index[3] = {
			previous ? previous->index : 0, current ? current->index : 0, next ? next->index : 0};

		switch (random_below(8)) {
		case 0 ... 2: {
			struct session *s = session_new(true);

			peer_add_session(&node->dev, peer, s);
			previous = next ? next : current;
			next = NULL;
			current = s;
			break;
		}
		case 3 ... 4: {
			struct session *s = session_new(false);

			peer_add_session(&node->dev, peer, s);
			next = s;
			previous = NULL;
			break;
		}
		case 5 ... 6: {
			/* Data under any of the three. */
			struct session *s = was[random_below(3)];
			const bool confirms = s && s == next;

			cr_assert_eq(peer_confirm_session(&node->dev, peer, s), confirms);
			if (confirms) {
				previous = current;
				current = next;
				next = NULL;
			}
			break;
		}
		default:
			if (random_below(10) == 0) {
				peer_clear_sessions(&node->dev, peer);
				previous = current = next = NULL;
			}
			break;
		}
		cr_assert(peer->previous == previous && peer->current == current && peer->next == next,
			"step %u", i);
		for (unsigned j = 0; j < 3; j++) {
			const bool alive =
				was[j] && (was[j] == previous || was[j] == current || was[j] == next);

			if (was[j])
				cr_assert_eq(
					session_table_find(&node->dev.sessions, was_index[j]) != NULL, alive);
		}
		rcu_quiescent_state();
	}
}

Test(peer, a_new_endpoint_bumps_the_generation_and_the_same_one_does_not)
{
	struct endpoint e;

	cr_assert_eq(endpoint_parse(&e, "192.0.2.9:9"), 0);
	peer_set_endpoint(peer, &e);
	cr_assert_eq(peer->endpoint_generation, 1);
	peer_set_endpoint(peer, &e);
	cr_assert_eq(peer->endpoint_generation, 1);
	peer_forget_source(peer);
	cr_assert_eq(peer->endpoint_generation, 1, "there was no source to forget");
	peer->endpoint.from.v4.s_addr = 1;
	peer_forget_source(peer);
	cr_assert_eq(peer->endpoint_generation, 2);
	cr_assert_eq(peer->endpoint.from.v4.s_addr, 0);
}

Test(peer, takes_a_roamed_endpoint_once)
{
	struct endpoint e, f;

	cr_assert_eq(endpoint_parse(&e, "192.0.2.9:9"), 0);
	cr_assert_eq(endpoint_parse(&f, "192.0.2.8:8"), 0);
	peer->roamed = e;
	peer_take_roamed(peer);
	cr_assert(!endpoint_is_set(&peer->endpoint), "nothing was announced");
	atomic_store(&peer->roamed_pending, true);
	peer_take_roamed(peer);
	cr_assert(endpoint_same_to(&peer->endpoint, &e));
	peer_set_endpoint(peer, &f);
	peer_take_roamed(peer);
	cr_assert(endpoint_same_to(&peer->endpoint, &f));
}

/* Packets of 192.0.2.9 that come to this last byte of an address, on this interface. */
static struct endpoint pinned(uint8_t from, int ifindex)
{
	struct endpoint e;

	cr_assert_eq(endpoint_parse(&e, "192.0.2.9:9"), 0);
	e.from.v4.s_addr = htonl(0xcb007100 + from);
	e.arrival_ifindex = ifindex;
	return e;
}

Test(peer, a_barred_source_stays_away_until_another_interface_brings_it)
{
	const struct endpoint one = pinned(1, 3), two = pinned(2, 4), moved = pinned(1, 4);

	peer_set_endpoint(peer, &one);
	peer_bar_source(peer, &one);
	cr_assert(endpoint_same_to(&peer->endpoint, &one));
	cr_assert_not(endpoint_is_pinned(&peer->endpoint));
	/* By handshake and by data. */
	peer_set_endpoint(peer, &one);
	cr_assert_not(endpoint_is_pinned(&peer->endpoint));
	peer->roamed = one;
	atomic_store(&peer->roamed_pending, true);
	peer_take_roamed(peer);
	cr_assert_not(endpoint_is_pinned(&peer->endpoint));
	/* Others are none of its business, and do not end it. */
	peer_set_endpoint(peer, &two);
	cr_assert(endpoint_same_arrival(&peer->endpoint, &two));
	peer_set_endpoint(peer, &moved);
	cr_assert(endpoint_same_arrival(&peer->endpoint, &moved));
	peer_set_endpoint(peer, &one);
	cr_assert_not(endpoint_is_pinned(&peer->endpoint));
}

Test(peer, only_the_source_in_use_is_barred)
{
	const struct endpoint one = pinned(1, 3), two = pinned(2, 4);

	peer_set_endpoint(peer, &two);
	peer_bar_source(peer, &one);
	cr_assert(endpoint_same_arrival(&peer->endpoint, &two));
	peer_set_endpoint(peer, &one);
	cr_assert(endpoint_same_arrival(&peer->endpoint, &one), "it was not in use");
	/* What waits in the mailbox is newer. */
	peer->roamed = two;
	atomic_store(&peer->roamed_pending, true);
	peer_bar_source(peer, &one);
	cr_assert(endpoint_same_arrival(&peer->endpoint, &two));
}

Test(peer, a_source_that_is_barred_no_more_is_to_be_told_again)
{
	const struct endpoint one = pinned(1, 3), two = pinned(2, 4);

	peer_set_endpoint(peer, &one);
	peer_bar_source(peer, &one);
	const uint32_t generation = peer->endpoint_generation;

	peer_unbar_source(peer, &two);
	cr_assert_eq(peer->endpoint_generation, generation, "it was not barred");
	peer_unbar_source(peer, &one);
	cr_assert_eq(peer->endpoint_generation, generation + 1);
	peer_set_endpoint(peer, &one);
	cr_assert(endpoint_same_arrival(&peer->endpoint, &one));
}
