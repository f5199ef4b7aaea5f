#include "core/control/routes.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>

#include "ring/park.h"
#include "tests/unit/control/support.h"

#define T0 (1000 * NS_PER_SEC)

/* Routes as the test wants them: by the last byte of the source address, an interface or -errno. */
static struct {
	int way[256];
	unsigned asked;
	uint16_t port;
	uint32_t mark;
	struct routes *changes_while_asked;
} table;

static int fake_lookup(void *ctx, const struct endpoint *to, uint16_t port, uint32_t mark, int *ifindex)
{
	const bool v6 = to->to.sa.sa_family == AF_INET6;
	const int way = table.way[v6 ? to->from.v6.s6_addr[15] : ntohl(to->from.v4.s_addr) & 255];

	table.asked++;
	table.port = port;
	table.mark = mark;
	if (table.changes_while_asked)
		routes_changed(table.changes_while_asked);
	if (way < 0)
		return way;
	*ifindex = way;
	return 0;
}

static const struct routes_sys fake = {.lookup = fake_lookup};

static struct bench *b;
static struct event_loop loop;
static struct routes *routes;

static void init(void)
{
	b = bench_new();
	cr_assert_eq(event_loop_init(&loop), 0);
	cr_assert_eq(routes_new(&routes, &loop, &b->target, &fake), 0);
}

static void done(void)
{
	routes_free(routes);
	event_loop_done(&loop);
	bench_free(b);
}

TestSuite(routes, .init = init, .fini = done);

static struct endpoint pinned(uint8_t from, int ifindex)
{
	struct endpoint e;

	cr_assert_eq(endpoint_parse(&e, "192.0.2.9:9"), 0);
	e.from.v4.s_addr = htonl(0xcb007100 + from);
	e.arrival_ifindex = ifindex;
	return e;
}

static struct peer *add_peer(uint32_t number, const struct endpoint *endpoint)
{
	uint8_t key[NOISE_KEY_BYTES] = {1};

	store_le32(key + 4, number);
	struct peer *peer = peer_new(key, NULL);

	cr_assert(peer);
	device_add_peer(b->dev, peer);
	peer_set_endpoint(peer, endpoint);
	return peer;
}

/* All of a round; returns when it was over. */
static uint64_t round_at(uint64_t now_ns)
{
	routes_changed(routes);
	routes_tick(routes, now_ns);
	while (routes_due_ns(routes) != UINT64_MAX) {
		now_ns = routes_due_ns(routes);
		routes_tick(routes, now_ns);
	}
	return now_ns;
}

Test(routes, a_source_stays_while_the_route_leaves_where_packets_come_in)
{
	const struct endpoint e = pinned(1, 3);
	struct peer *peer = add_peer(1, &e);

	table.way[1] = 3;
	round_at(T0);
	cr_assert_eq(table.asked, 1);
	cr_assert(endpoint_same_arrival(&peer->endpoint, &e));
}

Test(routes, a_source_goes_when_the_route_leaves_elsewhere_and_may_come_back)
{
	const struct endpoint e = pinned(1, 3);
	struct peer *peer = add_peer(1, &e);

	table.way[1] = 4;
	round_at(T0);
	cr_assert(endpoint_same_to(&peer->endpoint, &e));
	cr_assert_not(endpoint_is_pinned(&peer->endpoint));
	/* Packets that are still on their way to the old address do not bring it back. */
	peer_set_endpoint(peer, &e);
	cr_assert_not(endpoint_is_pinned(&peer->endpoint));
	round_at(T0 + ROUTES_ROUND_NS);
	peer_set_endpoint(peer, &e);
	cr_assert_not(endpoint_is_pinned(&peer->endpoint));

	table.way[1] = 3;
	round_at(T0 + 2 * ROUTES_ROUND_NS);
	cr_assert_not(endpoint_is_pinned(&peer->endpoint), "only a packet pins");
	peer_set_endpoint(peer, &e);
	cr_assert(endpoint_same_arrival(&peer->endpoint, &e));
}

Test(routes, two_addresses_change_places)
{
	const struct endpoint one = pinned(1, 3), two = pinned(2, 4);
	struct peer *peer = add_peer(1, &one);

	table.way[1] = table.way[2] = 4;
	round_at(T0);
	peer_set_endpoint(peer, &two);
	table.way[1] = table.way[2] = 3;
	round_at(T0 + ROUTES_ROUND_NS);
	cr_assert_not(endpoint_is_pinned(&peer->endpoint));
	peer_set_endpoint(peer, &two);
	cr_assert_not(endpoint_is_pinned(&peer->endpoint));
	peer_set_endpoint(peer, &one);
	cr_assert(endpoint_same_arrival(&peer->endpoint, &one));
}

Test(routes, while_there_is_no_route_all_stays_as_it_is)
{
	const struct endpoint one = pinned(1, 3), two = pinned(2, 3);
	struct peer *first = add_peer(1, &one), *second = add_peer(2, &two);

	table.way[1] = 3;
	table.way[2] = 4;
	round_at(T0);
	table.way[1] = table.way[2] = -ENETUNREACH;
	round_at(T0 + ROUTES_ROUND_NS);
	cr_assert(endpoint_same_arrival(&first->endpoint, &one));
	peer_set_endpoint(second, &two);
	cr_assert_not(endpoint_is_pinned(&second->endpoint));
}

Test(routes, nothing_is_asked_where_nothing_could_change)
{
	struct endpoint e;
	struct peer *peer;

	cr_assert_eq(endpoint_parse(&e, "192.0.2.9:9"), 0);
	add_peer(1, &e);
	memset(&e, 0, sizeof(e));
	add_peer(2, &e);
	/* Its packets leave by its link, whatever the routes are. */
	cr_assert_eq(endpoint_parse(&e, "[fe80::9%3]:9"), 0);
	cr_assert_eq(inet_pton(AF_INET6, "fe80::1", &e.from.v6), 1);
	e.from_ifindex = e.arrival_ifindex = 3;
	peer = add_peer(3, &e);
	/* Before the first packet. */
	e = pinned(1, 0);
	add_peer(4, &e);
	table.way[1] = 4;
	round_at(T0);
	cr_assert_eq(table.asked, 0);
	cr_assert_eq(peer->endpoint.from_ifindex, 3);
}

Test(routes, ipv6_sources_go_too)
{
	struct endpoint e;

	cr_assert_eq(endpoint_parse(&e, "[2001:db8::9]:9"), 0);
	cr_assert_eq(inet_pton(AF_INET6, "2001:db8::1", &e.from.v6), 1);
	e.arrival_ifindex = 3;
	struct peer *peer = add_peer(1, &e);

	table.way[1] = 4;
	round_at(T0);
	cr_assert(endpoint_same_to(&peer->endpoint, &e));
	cr_assert_not(endpoint_is_pinned(&peer->endpoint));
}

Test(routes, the_newest_endpoint_is_asked_about)
{
	const struct endpoint one = pinned(1, 3), two = pinned(2, 4);
	struct peer *peer = add_peer(1, &one);

	peer->roamed = two;
	atomic_store(&peer->roamed_pending, true);
	table.way[1] = table.way[2] = 4;
	round_at(T0);
	cr_assert(endpoint_same_arrival(&peer->endpoint, &two));
}

Test(routes, the_mark_and_the_port_are_part_of_the_question)
{
	const struct endpoint e = pinned(1, 3);

	add_peer(1, &e);
	b->dev->fwmark = 77;
	b->dev->listen_port = 51820;
	round_at(T0);
	cr_assert_eq(table.mark, 77);
	cr_assert_eq(table.port, 51820);
}

Test(routes, many_changes_make_one_round_a_second)
{
	const struct endpoint e = pinned(1, 3);

	add_peer(1, &e);
	table.way[1] = 3;
	cr_assert_eq(routes_due_ns(routes), UINT64_MAX);
	table.changes_while_asked = routes;
	for (uint64_t ns = 0; ns < 5 * ROUTES_ROUND_NS; ns += NS_PER_MS) {
		routes_changed(routes);
		routes_tick(routes, T0 + ns);
	}
	cr_assert_eq(table.asked, 5);
	/* A change during the last of them, after it was asked, is not lost. */
	table.changes_while_asked = NULL;
	cr_assert_eq(routes_due_ns(routes), T0 + 5 * ROUTES_ROUND_NS);
	routes_tick(routes, routes_due_ns(routes));
	cr_assert_eq(table.asked, 6);
	cr_assert_eq(routes_due_ns(routes), UINT64_MAX);
}

Test(routes, a_round_over_many_peers_goes_in_pieces)
{
	const unsigned nr = 5 * ROUTES_PIECE_PEERS + 1;
	const struct endpoint e = pinned(1, 3);

	for (uint32_t i = 0; i < nr; i++)
		add_peer(i, &e);
	table.way[1] = 3;
	routes_changed(routes);
	routes_tick(routes, T0);
	cr_assert_eq(table.asked, ROUTES_PIECE_PEERS);
	routes_tick(routes, T0 + ROUTES_PIECE_NS - 1);
	cr_assert_eq(table.asked, ROUTES_PIECE_PEERS, "too early");
	b->calls = 0;
	cr_assert_eq(round_at(T0 + ROUTES_PIECE_NS), T0 + ROUTES_ROUND_NS + 5 * ROUTES_PIECE_NS);
	cr_assert_eq(table.asked, 2 * nr, "the rest, and all of them once more after the change meanwhile");
	cr_assert_eq(b->calls, 5 + 6);
}

Test(routes, peers_may_go_while_a_round_is_under_way)
{
	const unsigned nr = 3 * ROUTES_PIECE_PEERS;
	const struct endpoint e = pinned(1, 3);
	struct peer *peers[3 * ROUTES_PIECE_PEERS];

	for (uint32_t i = 0; i < nr; i++)
		peers[i] = add_peer(i, &e);
	table.way[1] = 4;
	routes_changed(routes);
	routes_tick(routes, T0);
	/* The one that the first piece ended with, with the next; and another comes in its place, under its key. */
	device_remove_peer(b->dev, peers[ROUTES_PIECE_PEERS - 1]);
	device_remove_peer(b->dev, peers[ROUTES_PIECE_PEERS]);
	peers[ROUTES_PIECE_PEERS - 1] = add_peer(ROUTES_PIECE_PEERS - 1, &e);
	while (routes_due_ns(routes) != UINT64_MAX)
		routes_tick(routes, routes_due_ns(routes));
	cr_assert_eq(table.asked, nr);
	for (uint32_t i = 0; i < nr; i++)
		if (i != ROUTES_PIECE_PEERS)
			cr_assert_not(endpoint_is_pinned(&peers[i]->endpoint), "peer %u", i);
}

static void remove_while_asked(void *ctx, void (*fn)(struct device *dev, void *arg), void *arg)
{
	/* The first visit collects, the second changes. */
	if (++b->calls == 2)
		device_remove_peer(b->dev, cds_list_first_entry(&b->dev->peers, struct peer, link));
	fn(b->dev, arg);
}

Test(routes, a_peer_may_go_while_the_kernel_is_asked)
{
	const struct endpoint e = pinned(1, 3);
	struct peer *second;

	add_peer(1, &e);
	second = add_peer(2, &e);
	b->target.call = remove_while_asked;
	b->calls = 0;
	table.way[1] = 4;
	round_at(T0);
	cr_assert_eq(b->dev->nr_peers, 1);
	cr_assert_not(endpoint_is_pinned(&second->endpoint));
}

/* The rest asks the real kernel: about the one interface that every namespace has. */

static struct peer *add_loopback_peer(const char *to, const char *from, int ifindex)
{
	struct endpoint e;

	cr_assert_eq(endpoint_parse(&e, to), 0);
	cr_assert_eq(inet_pton(e.to.sa.sa_family, from, &e.from), 1);
	e.arrival_ifindex = ifindex;
	return add_peer((uint32_t)b->dev->nr_peers, &e);
}

Test(routes, the_kernel_says_how_packets_leave)
{
	const int lo = (int)if_nametoindex("lo");

	routes_free(routes);
	cr_assert_eq(routes_new(&routes, &loop, &b->target, NULL), 0);
	struct peer *stays4 = add_loopback_peer("127.0.0.2:9", "127.0.0.3", lo);
	struct peer *goes4 = add_loopback_peer("127.0.0.2:9", "127.0.0.3", lo + 100);
	struct peer *stays6 = add_loopback_peer("[::1]:9", "::1", lo);
	struct peer *goes6 = add_loopback_peer("[::1]:9", "::1", lo + 100);
	struct peer *nowhere = add_loopback_peer("127.0.0.2:9", "192.0.2.99", lo + 100);

	b->dev->fwmark = 5;
	b->dev->listen_port = 51820;
	round_at(T0);
	cr_assert(endpoint_is_pinned(&stays4->endpoint));
	cr_assert_not(endpoint_is_pinned(&goes4->endpoint));
	cr_assert(endpoint_is_pinned(&stays6->endpoint));
	cr_assert_not(endpoint_is_pinned(&goes6->endpoint));
	cr_assert(endpoint_is_pinned(&nowhere->endpoint));
}
