#include <errno.h>

#include "crypto/secret.h"
#include "tests/unit/control/support.h"
#include "tests/unit/mapping.h"

/* What get answers for a peer that has nothing but its key. */
#define BARE_PEER                                                                                            \
	"public_key=%s\n"                                                                                    \
	"preshared_key=0000000000000000000000000000000000000000000000000000000000000000\n"                   \
	"protocol_version=1\n"                                                                               \
	"last_handshake_time_sec=0\nlast_handshake_time_nsec=0\ntx_bytes=0\nrx_bytes=0\n"                    \
	"persistent_keepalive_interval=0\n"

#define PRIVATE "10203040506070809001020304050607080900102030405060708090a0b0c06f"

static struct peer *peer_number(struct bench *b, uint32_t i)
{
	uint8_t key[NOISE_KEY_BYTES];

	for (unsigned j = 0; j < NOISE_KEY_BYTES; j++) {
		unsigned byte;

		sscanf(bench_key(i) + 2 * j, "%2x", &byte);
		key[j] = (uint8_t)byte;
	}
	return device_find_peer(b->dev, key);
}

/* The public key of the device, as text. */
static const char *own_key(struct bench *b)
{
	static char text[2 * NOISE_KEY_BYTES + 1];

	for (unsigned i = 0; i < NOISE_KEY_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", b->dev->identity.public_key[i]);
	return text;
}

Test(config, refused_request_changes_nothing)
{
	struct bench *b = bench_new();
	char *before, *after;

	cr_assert_eq(config_link_up(&b->config), 0);
	cr_assert_eq(
		bench_set(b,
			"private_key=%s\nlisten_port=1000\nfwmark=7\npublic_key=%s\nallowed_ip=10.0.0.0/8\n",
			PRIVATE, bench_key(1)),
		0);
	before = bench_get(b);

	bench_sockets.busy_port = 2000;
	cr_assert_eq(
		bench_set(b,
			"private_key=%s\nlisten_port=2000\nfwmark=8\nreplace_peers=true\npublic_key=%s\n",
			bench_key(9), bench_key(2)),
		-EADDRINUSE);
	after = bench_get(b);
	cr_assert_str_eq(after, before);
	free(after);

	bench_sockets.mark_error = -EPERM;
	cr_assert_eq(bench_set(b, "fwmark=9\nreplace_peers=true\n"), -EPERM);
	after = bench_get(b);
	cr_assert_str_eq(after, before);
	cr_assert_eq(bench_sockets.mark, 7);
	free(after);
	free(before);
	bench_free(b);
}

Test(config, new_port_is_open_before_the_old_one_closes)
{
	struct bench *b = bench_new();
	struct udp_sockets *old;

	cr_assert_eq(config_link_up(&b->config), 0);
	bench_expect(b, "listen_port=%u\n", BENCH_RANDOM_PORT);
	old = udp_sockets_get(b->used);
	cr_assert_eq(bench_set(b, "listen_port=2000\n"), 0);
	cr_assert_eq(old->refs, 1, "the old sockets were given up");
	udp_sockets_put(old);
	cr_assert_eq(b->used->port, 2000);
	bench_expect(b, "listen_port=2000\n");
	/* The same port again is no change. */
	old = b->used;
	cr_assert_eq(bench_set(b, "listen_port=2000\n"), 0);
	cr_assert_eq(b->used, old);
	cr_assert_eq(bench_sockets.nr_open, 2);
	/* Port 0 lets the kernel choose another. */
	cr_assert_eq(bench_set(b, "listen_port=0\n"), 0);
	bench_expect(b, "listen_port=%u\n", BENCH_RANDOM_PORT + 1);
	bench_free(b);
}

Test(config, sockets_exist_only_while_the_interface_is_up)
{
	struct bench *b = bench_new();

	cr_assert_eq(bench_set(b, "listen_port=2000\nfwmark=5\n"), 0);
	cr_assert_eq(bench_sockets.nr_open, 0);
	cr_assert(!b->dev->up);
	bench_expect(b, "listen_port=2000\nfwmark=5\n");

	cr_assert_eq(config_link_up(&b->config), 0);
	cr_assert_eq(config_link_up(&b->config), 0, "twice is harmless");
	cr_assert_eq(bench_sockets.nr_open, 1);
	cr_assert_eq(b->used->port, 2000);
	cr_assert_eq(bench_sockets.mark, 5);
	cr_assert(b->dev->up);

	config_link_down(&b->config);
	config_link_down(&b->config);
	cr_assert_null(b->used);
	cr_assert(!b->dev->up);
	bench_expect(b, "listen_port=2000\nfwmark=5\n");
	bench_free(b);
}

Test(config, port_chosen_by_the_kernel_is_kept_over_down_and_up)
{
	struct bench *b = bench_new();

	cr_assert_eq(config_link_up(&b->config), 0);
	config_link_down(&b->config);
	bench_expect(b, "listen_port=%u\n", BENCH_RANDOM_PORT);
	cr_assert_eq(config_link_up(&b->config), 0);
	bench_expect(b, "listen_port=%u\n", BENCH_RANDOM_PORT);
	bench_free(b);
}

Test(config, device_stays_down_until_a_port_can_be_bound)
{
	struct bench *b = bench_new();

	bench_sockets.busy_port = 2000;
	cr_assert_eq(bench_set(b, "listen_port=2000\n"), 0);
	cr_assert_eq(config_link_up(&b->config), -EADDRINUSE);
	cr_assert(!b->dev->up);
	cr_assert_null(b->used);
	/* A request that has nothing to do with it is not refused for it. */
	cr_assert_eq(bench_set(b, "public_key=%s\n", bench_key(1)), 0);
	cr_assert(!b->dev->up);
	cr_assert_eq(bench_set(b, "listen_port=2000\n"), -EADDRINUSE);
	cr_assert_eq(bench_set(b, "listen_port=2001\n"), 0);
	cr_assert(b->dev->up);
	cr_assert_eq(b->used->port, 2001);

	config_link_down(&b->config);
	bench_sockets.busy_port = 2001;
	cr_assert_eq(config_link_up(&b->config), -EADDRINUSE);
	bench_sockets.busy_port = 0;
	cr_assert_eq(bench_set(b, "listen_port=2001\n"), 0, "the same port, free by now");
	cr_assert(b->dev->up);
	bench_free(b);
}

Test(config, mark_changes_on_open_sockets)
{
	struct bench *b = bench_new();

	cr_assert_eq(config_link_up(&b->config), 0);
	cr_assert_eq(bench_set(b, "fwmark=4294967295\n"), 0);
	cr_assert_eq(bench_sockets.mark, UINT32_MAX);
	cr_assert_eq(bench_sockets.nr_open, 1);
	cr_assert_eq(bench_set(b, "fwmark=0\n"), 0);
	cr_assert_eq(bench_sockets.mark, 0);
	/* Both at once: the new sockets have the mark from the start. */
	cr_assert_eq(bench_set(b, "fwmark=3\nlisten_port=2000\n"), 0);
	cr_assert_eq(bench_sockets.mark, 3);
	bench_expect(b, "listen_port=2000\nfwmark=3\n");
	bench_free(b);
}

Test(config, port_or_mark_change_forgets_pinned_sources)
{
	struct bench *b = bench_new();
	struct peer *peer;

	cr_assert_eq(config_link_up(&b->config), 0);
	cr_assert_eq(bench_set(b, "public_key=%s\nendpoint=192.0.2.9:9\n", bench_key(1)), 0);
	peer = peer_number(b, 1);
	peer->endpoint.from.v4.s_addr = 1;
	peer->endpoint.from_ifindex = 3;
	cr_assert_eq(bench_set(b, "public_key=%s\nallowed_ip=10.0.0.0/8\n", bench_key(1)), 0);
	cr_assert_eq(peer->endpoint.from_ifindex, 3, "kept when neither changes");
	cr_assert_eq(bench_set(b, "fwmark=3\n"), 0);
	cr_assert_eq(peer->endpoint.from_ifindex, 0);
	cr_assert_eq(peer->endpoint.from.v4.s_addr, 0);
	cr_assert_eq(peer->endpoint.to.v4.sin_port, htons(9));
	bench_free(b);
}

Test(config, peer_limit_is_checked_before_anything_changes, .timeout = 120)
{
	struct bench *b = bench_new();
	struct config_set set;
	uint8_t key[NOISE_KEY_BYTES] = {1};

	config_set_init(&set);
	for (uint32_t i = 0; i < DEVICE_PEERS_MAX + 1; i++) {
		store_be32(key + 28, i);
		cr_assert_eq(config_set_add_peer(&set, key), 0);
	}
	set.has_fwmark = true;
	set.fwmark = 9;
	cr_assert_eq(config_apply(&b->config, &set), -ENOSPC);
	config_set_done(&set);
	bench_expect(b, "%s", "");
	cr_assert_eq(secret_in_use(), 0, "memory was taken for what was refused");

	/* The same peer named often is one peer, and a peer removed makes room for another. */
	config_set_init(&set);
	for (uint32_t i = 0; i < DEVICE_PEERS_MAX; i++) {
		store_be32(key + 28, i);
		cr_assert_eq(config_set_add_peer(&set, key), 0);
	}
	for (uint32_t i = 0; i < 100; i++) {
		store_be32(key + 28, i);
		cr_assert_eq(config_set_add_peer(&set, key), 0);
		cr_assert_eq(config_set_add_peer(&set, key), 0);
		set.peers[set.nr_peers - 1].remove = true;
		store_be32(key + 28, DEVICE_PEERS_MAX + i);
		cr_assert_eq(config_set_add_peer(&set, key), 0);
	}
	cr_assert_eq(config_apply(&b->config, &set), 0);
	config_set_done(&set);
	cr_assert_eq(b->dev->nr_peers, DEVICE_PEERS_MAX);

	/* Full: one more is refused, with replace_peers it is not. */
	store_be32(key + 28, UINT32_MAX);
	config_set_init(&set);
	cr_assert_eq(config_set_add_peer(&set, key), 0);
	cr_assert_eq(config_apply(&b->config, &set), -ENOSPC);
	set.replace_peers = true;
	cr_assert_eq(config_apply(&b->config, &set), 0);
	config_set_done(&set);
	cr_assert_eq(b->dev->nr_peers, 1);
	bench_free(b);
}

Test(config, prefix_limit_counts_what_the_request_takes_away, .timeout = 120)
{
	struct bench *b = bench_new();
	struct ip_prefix prefix = {.family = AF_INET6, .cidr = 128};
	uint8_t key[NOISE_KEY_BYTES] = {1};
	struct config_set set;

	for (unsigned round = 0; round < 3; round++) {
		config_set_init(&set);
		cr_assert_eq(config_set_add_peer(&set, key), 0);
		if (round == 2)
			config_set_replace_prefixes(&set);
		for (uint32_t i = 0; i < (round == 1 ? 1 : DEVICE_ALLOWED_IPS_MAX); i++) {
			store_be32(prefix.addr, i);
			store_be32(prefix.addr + 4, round);
			cr_assert_eq(config_set_add_prefix(&set, &prefix, false), 0);
		}
		/* Filled, one too many, all of them replaced. */
		cr_assert_eq(config_apply(&b->config, &set), round == 1 ? -ENOSPC : 0);
		config_set_done(&set);
		cr_assert_eq(b->dev->allowed_ips.count, DEVICE_ALLOWED_IPS_MAX);
		rcu_quiescent_state();
	}
	bench_free(b);
}

Test(config, oversized_request_is_refused_while_it_is_gathered)
{
	uint8_t key[NOISE_KEY_BYTES] = {1};
	struct config_set set;

	cr_assert_eq(secret_init(), 0);
	config_set_init(&set);
	for (uint32_t i = 0; i < CONFIG_SET_PEERS_MAX; i++)
		cr_assert_eq(config_set_add_peer(&set, key), 0);
	cr_assert_eq(config_set_add_peer(&set, key), -E2BIG);
	config_set_done(&set);
}

Test(config, peer_with_our_own_key_is_skipped_and_removed)
{
	struct bench *b = bench_new();
	char own[2 * NOISE_KEY_BYTES + 1];

	cr_assert_eq(bench_set(b, "private_key=%s\n", PRIVATE), 0);
	strcpy(own, own_key(b));
	cr_assert_eq(bench_set(b, "public_key=%s\nallowed_ip=10.0.0.0/8\nendpoint=192.0.2.9:9\n", own), 0);
	cr_assert_eq(b->dev->nr_peers, 0);
	cr_assert_eq(b->dev->allowed_ips.count, 0);

	/* A peer first, ourselves afterwards. */
	cr_assert_eq(bench_set(b, "private_key=%064d\npublic_key=%s\nallowed_ip=10.0.0.0/8\n", 0, own), 0);
	cr_assert_eq(b->dev->nr_peers, 1);
	cr_assert_eq(
		bench_set(b, "private_key=%s\npublic_key=%s\npublic_key=%s\n", PRIVATE, own, bench_key(1)),
		0);
	cr_assert_eq(b->dev->nr_peers, 1);
	cr_assert(peer_number(b, 1));
	cr_assert_eq(b->dev->allowed_ips.count, 0);
	bench_free(b);
}

Test(config, private_key_of_zeros_removes_it)
{
	struct bench *b = bench_new();

	cr_assert_eq(bench_set(b, "private_key=%s\n", PRIVATE), 0);
	cr_assert(b->dev->identity.has);
	cr_assert_eq(bench_set(b, "private_key=%064d\n", 0), 0);
	cr_assert(!b->dev->identity.has);
	bench_expect(b, "%s", "");
	/* A peer of key zero is not ourselves just because we have no key. */
	cr_assert_eq(bench_set(b, "public_key=%064d\n", 0), 0);
	cr_assert_eq(b->dev->nr_peers, 1);
	bench_free(b);
}

/* For those who ask which key this is: found without going through the secret one. */
Test(config, public_key_follows_the_private_key)
{
	struct bench *b = bench_new();

	cr_assert(!b->config.has_public_key);
	cr_assert_eq(bench_set(b, "private_key=%s\n", PRIVATE), 0);
	cr_assert(b->config.has_public_key);
	cr_assert_arr_eq(b->config.public_key, b->dev->identity.public_key, NOISE_KEY_BYTES);
	bench_sockets.busy_port = 7;
	cr_assert_eq(config_link_up(&b->config), 0);
	cr_assert_eq(bench_set(b, "private_key=%s\nlisten_port=7\n", bench_key(1)), -EADDRINUSE);
	cr_assert_arr_eq(b->config.public_key, b->dev->identity.public_key, NOISE_KEY_BYTES);
	cr_assert_eq(bench_set(b, "fwmark=3\n"), 0);
	cr_assert(b->config.has_public_key);
	cr_assert_eq(bench_set(b, "private_key=%064d\n", 0), 0);
	cr_assert(!b->config.has_public_key);
	bench_free(b);
}

Test(config, private_key_is_clamped_on_read_back)
{
	struct bench *b = bench_new();
	char ones[65];

	memset(ones, 'f', 64);
	ones[64] = '\0';
	cr_assert_eq(bench_set(b, "private_key=%s\n", ones), 0);
	bench_expect(b, "private_key=f8ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f\n");
	bench_free(b);
}

Test(config, update_only_never_creates)
{
	struct bench *b = bench_new();

	cr_assert_eq(
		bench_set(b, "public_key=%s\nupdate_only=true\nallowed_ip=10.0.0.0/8\n", bench_key(1)), 0);
	bench_expect(b, "%s", "");
	cr_assert_eq(bench_set(b, "public_key=%s\n", bench_key(1)), 0);
	cr_assert_eq(
		bench_set(b, "public_key=%s\nupdate_only=true\nallowed_ip=10.0.0.0/8\n", bench_key(1)), 0);
	bench_expect(b, BARE_PEER "allowed_ip=10.0.0.0/8\n", bench_key(1));
	cr_assert_eq(
		bench_set(b, "public_key=%s\nremove=true\n", bench_key(2)), 0, "removing what is not there");
	cr_assert_eq(bench_set(b, "public_key=%s\nremove=true\n", bench_key(1)), 0);
	bench_expect(b, "%s", "");
	bench_free(b);
}

Test(config, sections_of_one_peer_apply_in_order)
{
	struct bench *b = bench_new();

	cr_assert_eq(bench_set(b,
			     "public_key=%s\nallowed_ip=10.0.0.0/8\n"
			     "public_key=%s\nallowed_ip=10.0.0.0/8\n"
			     "public_key=%s\npersistent_keepalive_interval=0\nallowed_ip=10.0.0.0/8\n"
			     "public_key=%s\nremove=true\n"
			     "public_key=%s\n",
			     bench_key(1), bench_key(2), bench_key(1), bench_key(2), bench_key(2)),
		0);
	bench_expect(b, BARE_PEER "allowed_ip=10.0.0.0/8\n" BARE_PEER, bench_key(1), bench_key(2));
	bench_free(b);
}

Test(config, allowed_ips_move_and_go)
{
	struct bench *b = bench_new();

	cr_assert_eq(
		bench_set(b,
			"public_key=%s\nallowed_ip=10.1.2.3/8\nallowed_ip=::/0\nallowed_ip=192.168.4.0/24\n",
			bench_key(1)),
		0);
	bench_expect(b, BARE_PEER "allowed_ip=10.0.0.0/8\nallowed_ip=::/0\nallowed_ip=192.168.4.0/24\n",
		bench_key(1));
	cr_assert_eq(bench_set(b, "public_key=%s\nallowed_ip=::/0\nallowed_ip=-10.0.0.0/8\n", bench_key(2)),
		0, "what belongs to another peer is not taken from it");
	bench_expect(b,
		BARE_PEER "allowed_ip=10.0.0.0/8\nallowed_ip=192.168.4.0/24\n" BARE_PEER "allowed_ip=::/0\n",
		bench_key(1), bench_key(2));
	cr_assert_eq(bench_set(b, "public_key=%s\nallowed_ip=-10.0.0.0/8\n", bench_key(1)), 0);
	cr_assert_eq(bench_set(b,
			     "public_key=%s\nallowed_ip=1.1.1.1/"
			     "32\nreplace_allowed_ips=true\nallowed_ip=2.2.2.2/32\n",
			     bench_key(2)),
		0);
	bench_expect(b, BARE_PEER "allowed_ip=192.168.4.0/24\n" BARE_PEER "allowed_ip=2.2.2.2/32\n",
		bench_key(1), bench_key(2));
	bench_free(b);
}

Test(config, keepalive_goes_out_when_it_is_turned_on)
{
	struct bench *b = bench_new();
	struct datagram *d;

	cr_assert_eq(bench_set(b, "private_key=%s\n", PRIVATE), 0);
	cr_assert_eq(config_link_up(&b->config), 0);
	cr_assert_eq(bench_set(b, "public_key=%s\nendpoint=192.0.2.9:9\n", bench_key(1)), 0);
	cr_assert_null(node_take(b->node));
	cr_assert_eq(bench_set(b, "public_key=%s\npersistent_keepalive_interval=25\n", bench_key(1)), 0);
	node_run(b->node, b->dev->now_ns);
	d = node_take(b->node);
	cr_assert(d, "no handshake was started for the keepalive");
	cr_assert_eq(datagram_type(d), WIRE_INITIATION);
	free(d);
	cr_assert_null(node_take(b->node), "one is enough");
	cr_assert_eq(bench_set(b, "public_key=%s\npersistent_keepalive_interval=25\n", bench_key(1)), 0);
	node_run(b->node, b->dev->now_ns);
	cr_assert_null(node_take(b->node), "it was on already");

	/* All of a new peer is in place when its keepalive is sent: the endpoint may come after it. */
	cr_assert_eq(bench_set(b, "public_key=%s\npersistent_keepalive_interval=25\nendpoint=192.0.2.8:8\n",
			     bench_key(2)),
		0);
	node_run(b->node, b->dev->now_ns);
	d = node_take(b->node);
	cr_assert(d);
	cr_assert_eq(d->to.to.v4.sin_port, htons(8));
	free(d);
	bench_free(b);
}

Test(config, nothing_is_sent_while_the_interface_is_down)
{
	struct bench *b = bench_new();
	struct datagram *d;

	cr_assert_eq(bench_set(b,
			     "private_key=%s\npublic_key=%s\nendpoint=192.0.2.9:9\npersistent_keepalive_"
			     "interval=25\n",
			     PRIVATE, bench_key(1)),
		0);
	cr_assert_null(node_take(b->node));
	cr_assert_eq(config_link_up(&b->config), 0);
	node_run(b->node, b->dev->now_ns);
	d = node_take(b->node);
	cr_assert(d, "it goes out when the interface comes up");
	free(d);
	bench_free(b);
}

Test(config, same_private_key_keeps_sessions)
{
	struct bench *b = bench_new();
	struct peer *peer;

	cr_assert_eq(bench_set(b, "private_key=%s\n", PRIVATE), 0);
	cr_assert_eq(config_link_up(&b->config), 0);
	cr_assert_eq(bench_set(b, "public_key=%s\nendpoint=192.0.2.9:9\npersistent_keepalive_interval=25\n",
			     bench_key(1)),
		0);
	node_run(b->node, b->dev->now_ns);
	peer = peer_number(b, 1);
	cr_assert(peer->handshake_session);
	cr_assert_eq(bench_set(b, "private_key=%s\n", PRIVATE), 0);
	cr_assert(peer->handshake_session, "as `wg syncconf` does it");
	free(node_take(b->node));
	bench_free(b);
}

Test(config, snapshot_shows_figures_of_the_peer)
{
	struct bench *b = bench_new();
	struct peer *peer;

	cr_assert_eq(bench_set(b,
			     "public_key=%s\npreshared_key=%s\nendpoint=[2001:db8::1]:9\npersistent_"
			     "keepalive_interval=65535\n",
			     bench_key(1), bench_key(7)),
		0);
	peer = peer_number(b, 1);
	peer->last_handshake_realtime_ns = UINT64_C(1700000000123456789);
	peer->tx_bytes = UINT64_MAX;
	peer->rx_bytes = 100;
	peer->rx_handshake_bytes = 48;
	bench_expect(b,
		"public_key=%s\npreshared_key=%s\nprotocol_version=1\nendpoint=[2001:db8::1]:9\n"
		"last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=123456789\n"
		"tx_bytes=18446744073709551615\nrx_bytes=148\npersistent_keepalive_interval=65535\n",
		bench_key(1), bench_key(7));
	cr_assert_eq(bench_set(b, "public_key=%s\npreshared_key=%064d\n", bench_key(1), 0), 0);
	cr_assert_eq(peer->handshake.preshared[31], 0, "zeros: none");
	bench_free(b);
}

/* Out of core dumps, and zeroed when it is freed. */
Test(config, keys_of_a_request_and_of_a_listing_lie_in_guarded_memory)
{
	struct bench *b = bench_new();
	struct config_set set;
	struct config_snapshot *snapshot = secret_alloc(sizeof(*snapshot));
	const size_t before = secret_in_use();
	uint8_t key[NOISE_KEY_BYTES] = {1};

	cr_assert(snapshot);
	config_set_init(&set);
	for (unsigned i = 0; i < 2000; i++) {
		memcpy(key + 1, &i, sizeof(i));
		cr_assert_eq(config_set_add_peer(&set, key), 0);
		cr_assert(i & (i - 1) || mapping_has_flag(set.peers, " dd"), "%u peers", i + 1);
	}
	cr_assert(mapping_has_flag(&set.peers[1999], " dd"));
	cr_assert_eq(config_apply(&b->config, &set), 0);
	config_set_done(&set);
	cr_assert_eq(config_get(&b->config, snapshot), 0);
	cr_assert_eq(snapshot->nr_peers, 2000);
	cr_assert(
		mapping_has_flag(snapshot->peers, " dd") && mapping_has_flag(&snapshot->peers[1999], " dd"));
	config_snapshot_done(snapshot);
	cr_assert_geq(secret_in_use(), before);
	secret_free(snapshot, sizeof(*snapshot));
	bench_free(b);
}
