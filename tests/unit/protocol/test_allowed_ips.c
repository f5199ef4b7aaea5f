#include "core/protocol/allowed_ips.h"
#include "tests/unit/protocol/support.h"

#define PEERS 8
#define MODEL_MAX 4096

static struct allowed_ips table;
static struct peer *peers[PEERS];

static void init(void)
{
	state_init();
	allowed_ips_init(&table);
	for (unsigned i = 0; i < PEERS; i++) {
		const uint8_t key[NOISE_KEY_BYTES] = {(uint8_t)(i + 1)};

		peers[i] = peer_new(key, NULL);
	}
}

static void done(void)
{
	allowed_ips_done(&table);
	rcu_barrier();
	for (unsigned i = 0; i < PEERS; i++)
		peer_free(peers[i]);
}

TestSuite(allowed_ips, .init = init, .fini = done);

static void insert_prefix(const struct ip_prefix *prefix, struct peer *peer)
{
	struct allowed_ips_spare spare;

	cr_assert_eq(allowed_ips_spare_alloc(&spare), 0);
	allowed_ips_insert(&table, prefix, peer, &spare);
	allowed_ips_spare_free(&spare);
}

static void insert(const char *text, unsigned peer)
{
	const struct ip_prefix prefix = prefix_of(text);

	insert_prefix(&prefix, peers[peer]);
}

static bool remove_from(const char *text, unsigned peer)
{
	const struct ip_prefix prefix = prefix_of(text);

	return allowed_ips_remove(&table, &prefix, peers[peer]);
}

/* The number of the peer, -1 none. */
static int number_of(const struct peer *peer)
{
	return peer ? peer->public_key[0] - 1 : -1;
}

static int lookup(const char *address)
{
	char text[64];

	snprintf(text, sizeof(text), "%s/0", address);
	const struct ip_prefix p = prefix_of(text);
	return number_of(p.family == AF_INET ? allowed_ips_lookup4(&table, p.addr)
					     : allowed_ips_lookup6(&table, p.addr));
}

struct listing {
	char text[1024];
};

static bool list_one(void *arg, const struct ip_prefix *p)
{
	struct listing *l = arg;
	const size_t at = strlen(l->text);

	snprintf(l->text + at, sizeof(l->text) - at, "%u.%u.%u.%u/%u ", p->addr[0], p->addr[1], p->addr[2],
		p->addr[3], p->cidr);
	return true;
}

static bool list_first(void *arg, const struct ip_prefix *p)
{
	list_one(arg, p);
	return false;
}

Test(allowed_ips, longest_prefix_wins)
{
	insert("10.0.0.0/8", 0);
	insert("10.1.0.0/16", 1);
	insert("10.1.2.0/24", 2);
	insert("10.1.2.3/32", 3);
	cr_assert_eq(lookup("10.9.9.9"), 0);
	cr_assert_eq(lookup("10.1.9.9"), 1);
	cr_assert_eq(lookup("10.1.2.9"), 2);
	cr_assert_eq(lookup("10.1.2.3"), 3);
	cr_assert_eq(lookup("11.0.0.0"), -1);
}

Test(allowed_ips, default_routes_match_everything_of_their_family_only)
{
	insert("0.0.0.0/0", 0);
	cr_assert_eq(lookup("255.255.255.255"), 0);
	cr_assert_eq(lookup("0.0.0.0"), 0);
	cr_assert_eq(lookup("::"), -1);
	insert("::/0", 1);
	insert("fd00::/8", 2);
	cr_assert_eq(lookup("ffff::1"), 1);
	cr_assert_eq(lookup("fd12::1"), 2);
	cr_assert(remove_from("0.0.0.0/0", 0));
	cr_assert_eq(lookup("1.2.3.4"), -1);
	cr_assert_eq(lookup("::1"), 1);
}

Test(allowed_ips, full_length_ipv6_prefixes_tell_the_last_bit_apart)
{
	insert("2001:db8::2/128", 0);
	insert("2001:db8::3/128", 1);
	insert("2001:db8::/127", 2);
	cr_assert_eq(lookup("2001:db8::2"), 0);
	cr_assert_eq(lookup("2001:db8::3"), 1);
	cr_assert_eq(lookup("2001:db8::1"), 2);
	cr_assert_eq(lookup("2001:db8::4"), -1);
}

Test(allowed_ips, host_bits_do_not_matter)
{
	insert("10.1.2.3/8", 0);
	cr_assert_eq(lookup("10.0.0.0"), 0);
	insert("10.200.0.1/8", 1);
	cr_assert_eq(table.count, 1);
	cr_assert_eq(lookup("10.0.0.0"), 1);
	cr_assert(remove_from("10.77.0.0/8", 1));
	cr_assert_eq(table.count, 0);
}

Test(allowed_ips, adding_again_moves_the_prefix)
{
	insert("10.0.0.0/8", 0);
	insert("10.0.0.0/8", 1);
	cr_assert_eq(lookup("10.0.0.1"), 1);
	cr_assert_eq(table.count, 1);
	cr_assert(!remove_from("10.0.0.0/8", 0), "removed by a peer that lost it");
	cr_assert_eq(lookup("10.0.0.1"), 1);
	allowed_ips_remove_peer(&table, peers[0]);
	cr_assert_eq(lookup("10.0.0.1"), 1);
	allowed_ips_remove_peer(&table, peers[1]);
	cr_assert_eq(lookup("10.0.0.1"), -1);
}

Test(allowed_ips, removal_of_a_longer_prefix_uncovers_the_shorter)
{
	insert("10.0.0.0/8", 0);
	insert("10.128.0.0/9", 1);
	insert("10.192.0.0/10", 2);
	cr_assert(remove_from("10.128.0.0/9", 1));
	cr_assert_eq(lookup("10.129.0.0"), 0);
	cr_assert_eq(lookup("10.193.0.0"), 2);
	cr_assert(!remove_from("10.128.0.0/9", 1), "removed twice");
	cr_assert(!remove_from("10.0.0.0/9", 0), "removed a prefix that was never there");
}

Test(allowed_ips, walk_gives_the_prefixes_of_one_peer_in_order_of_insertion)
{
	struct listing l = {0};

	insert("192.168.0.0/16", 0);
	insert("10.0.0.0/8", 1);
	insert("10.5.0.0/16", 0);
	insert("1.2.3.4/32", 0);
	insert("192.168.0.0/16", 0);
	allowed_ips_walk(&table, peers[0], list_one, &l);
	cr_assert_str_eq(l.text, "192.168.0.0/16 10.5.0.0/16 1.2.3.4/32 ");
	l.text[0] = 0;
	allowed_ips_walk(&table, peers[0], list_first, &l);
	cr_assert_str_eq(l.text, "192.168.0.0/16 ");
	l.text[0] = 0;
	/* Moved away and back: last. */
	insert("192.168.0.0/16", 1);
	insert("192.168.0.0/16", 0);
	allowed_ips_walk(&table, peers[0], list_one, &l);
	cr_assert_str_eq(l.text, "10.5.0.0/16 1.2.3.4/32 192.168.0.0/16 ");
}

Test(allowed_ips, an_insertion_that_needs_no_memory_leaves_the_spare)
{
	const struct ip_prefix prefix = prefix_of("10.0.0.0/8");
	struct allowed_ips_spare spare;

	cr_assert_eq(allowed_ips_spare_alloc(&spare), 0);
	allowed_ips_insert(&table, &prefix, peers[0], &spare);
	cr_assert((spare.node[0] == NULL) != (spare.node[1] == NULL));
	allowed_ips_insert(&table, &prefix, peers[1], &spare);
	cr_assert((spare.node[0] == NULL) != (spare.node[1] == NULL));
	allowed_ips_spare_free(&spare);
}

/* ---- against a list that is searched from end to end ---- */

static struct {
	struct ip_prefix prefix; /* masked */
	struct peer *peer;
} model[MODEL_MAX];
static unsigned nr_model;

static bool same_bits(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	for (unsigned i = 0; i < bits; i++)
		if ((a[i / 8] ^ b[i / 8]) & (0x80 >> (i % 8)))
			return false;
	return true;
}

static struct peer *model_lookup(unsigned family, const uint8_t *addr)
{
	int best = -1;
	struct peer *peer = NULL;

	for (unsigned i = 0; i < nr_model; i++) {
		if (model[i].prefix.family == family && model[i].prefix.cidr > best &&
			same_bits(model[i].prefix.addr, addr, model[i].prefix.cidr)) {
			best = model[i].prefix.cidr;
			peer = model[i].peer;
		}
	}
	return peer;
}

static int model_find(const struct ip_prefix *p)
{
	for (unsigned i = 0; i < nr_model; i++)
		if (model[i].prefix.family == p->family && model[i].prefix.cidr == p->cidr &&
			same_bits(model[i].prefix.addr, p->addr, p->cidr))
			return (int)i;
	return -1;
}

static void model_remove(unsigned i)
{
	model[i] = model[--nr_model];
}

/* Few different bits, so that prefixes nest, meet and repeat. */
static void random_address(uint8_t *addr, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		addr[i] = random_below(3) ? 0
					  : (uint8_t)(random_below(4) ? UINT64_C(1) << random_below(8)
								      : random_below(256));
}

static bool count_one(void *arg, const struct ip_prefix *p)
{
	unsigned *n = arg;

	cr_assert_geq(model_find(p), 0, "walk gave a prefix that is not there");
	(*n)++;
	return true;
}

Test(allowed_ips, agrees_with_a_linear_search)
{
	unsigned most = 0;

	for (unsigned round = 0; round < 20000; round++) {
		struct ip_prefix p = {.family = random_below(2) ? AF_INET : AF_INET6};
		const unsigned bits = p.family == AF_INET ? 32 : 128;
		struct peer *peer = peers[random_below(PEERS)];

		random_address(p.addr, bits / 8);
		p.cidr = (uint8_t)(random_below(8) ? random_below(bits + 1) : bits);
		const int at = model_find(&p);
		switch (random_below(100)) {
		case 0:
			allowed_ips_remove_peer(&table, peer);
			for (unsigned i = nr_model; i--;)
				if (model[i].peer == peer)
					model_remove(i);
			break;
		case 1 ... 35:
			/* Mostly one that is there. */
			if (nr_model && random_below(4)) {
				const unsigned i = (unsigned)random_below(nr_model);

				p = model[i].prefix;
				cr_assert_eq(allowed_ips_remove(&table, &p, model[i].peer), true);
				model_remove(i);
			} else {
				cr_assert_eq(allowed_ips_remove(&table, &p, peer),
					at >= 0 && model[at].peer == peer);
				if (at >= 0 && model[at].peer == peer)
					model_remove((unsigned)at);
			}
			break;
		default:
			if (at < 0 && nr_model == MODEL_MAX)
				break;
			insert_prefix(&p, peer);
			if (at < 0)
				model[nr_model++].prefix = p;
			model[at < 0 ? nr_model - 1 : (unsigned)at].peer = peer;
			break;
		}
		cr_assert_eq(table.count, nr_model);
		most = MAX(most, nr_model);

		for (unsigned i = 0; i < 4; i++) {
			uint8_t addr[16];

			random_address(addr, 16);
			cr_assert_eq(allowed_ips_lookup4(&table, addr), model_lookup(AF_INET, addr));
			cr_assert_eq(allowed_ips_lookup6(&table, addr), model_lookup(AF_INET6, addr));
		}
		if (round % 1000 == 0) {
			unsigned n = 0;

			for (unsigned i = 0; i < PEERS; i++)
				allowed_ips_walk(&table, peers[i], count_one, &n);
			cr_assert_eq(n, nr_model);
			rcu_quiescent_state();
		}
	}
	cr_assert_gt(most, 100, "too little was in the table at once");
	for (unsigned i = 0; i < PEERS; i++)
		allowed_ips_remove_peer(&table, peers[i]);
	cr_assert_eq(table.count, 0);
	cr_assert(!table.root4 && !table.root6, "branches were left behind");
}
