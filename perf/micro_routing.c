/* Allowed-IPs and receiver-index lookup, by table size. */
#include "perf/micro.h"

#include <stdlib.h>

#include "core/protocol/allowed_ips.h"
#include "core/protocol/session_table.h"
#include "core/protocol/peer.h"
#include "tests/sim/node.h"

#define PEERS 16
#define LOOKUPS 256

struct routes {
	struct allowed_ips table;
	bool v6;
	unsigned nr;
	struct ip_prefix *prefix;
	struct peer **peer_of; /* each prefix's */
	struct peer *peers[PEERS];
	uint8_t addr[LOOKUPS][16];
	const struct peer *expected[LOOKUPS];
};

static bool matches(const struct ip_prefix *p, const uint8_t *addr)
{
	for (unsigned bit = 0; bit < p->cidr; bit++)
		if ((p->addr[bit / 8] ^ addr[bit / 8]) >> (7 - bit % 8) & 1)
			return false;
	return true;
}

/* Every prefix, one after the other; of equal ones the last counts. */
static const struct peer *naive_lookup(const struct routes *r, const uint8_t *addr)
{
	const struct peer *best = NULL;
	unsigned longest = 0;

	for (unsigned i = 0; i < r->nr; i++) {
		if (r->prefix[i].cidr >= longest && matches(&r->prefix[i], addr)) {
			best = r->peer_of[i];
			longest = r->prefix[i].cidr;
		}
	}
	return best;
}

/*
 * Prefixes as a large gateway has them: mostly single addresses and small networks, out of few large ones.
 * Half of the addresses looked up are inside a prefix for sure.
 */
static void *setup_routes(const struct stage *s, const char **why)
{
	struct routes *r = micro_alloc(sizeof(*r));
	const unsigned bytes = s->kind ? 16 : 4;

	r->v6 = s->kind != NULL;
	r->nr = s->n;
	r->prefix = micro_alloc(r->nr * sizeof(*r->prefix));
	r->peer_of = micro_alloc(r->nr * sizeof(*r->peer_of));
	allowed_ips_init(&r->table);
	for (unsigned i = 0; i < PEERS; i++) {
		const uint8_t key[NOISE_KEY_BYTES] = {(uint8_t)(i + 1)};

		r->peers[i] = peer_new(key, NULL);
		micro_require(r->peers[i]);
	}
	for (unsigned i = 0; i < r->nr; i++) {
		struct ip_prefix *p = &r->prefix[i];
		struct allowed_ips_spare spare;

		p->family = r->v6 ? AF_INET6 : AF_INET;
		p->cidr = (uint8_t)(r->v6 ? 48 + random_below(5) * 20 : 16 + random_below(5) * 4);
		for (unsigned b = 0; b < bytes; b++)
			p->addr[b] = (uint8_t)random_u64();
		p->addr[0] = r->v6 ? 0xfd : 10;
		r->peer_of[i] = r->peers[random_below(PEERS)];
		micro_require(!allowed_ips_spare_alloc(&spare));
		allowed_ips_insert(&r->table, p, r->peer_of[i], &spare);
		allowed_ips_spare_free(&spare);
	}
	for (unsigned i = 0; i < LOOKUPS; i++) {
		const struct ip_prefix *p = &r->prefix[random_below(r->nr)];

		for (unsigned b = 0; b < bytes; b++)
			r->addr[i][b] = (uint8_t)random_u64();
		r->addr[i][0] = r->v6 ? 0xfd : 10;
		for (unsigned bit = 0; i % 2 && bit < p->cidr; bit++) {
			const uint8_t mask = (uint8_t)(0x80 >> bit % 8);

			r->addr[i][bit / 8] =
				(uint8_t)((r->addr[i][bit / 8] & ~mask) | (p->addr[bit / 8] & mask));
		}
		r->expected[i] = naive_lookup(r, r->addr[i]);
	}
	return r;
}

static unsigned turn_lookup4(void *ctx)
{
	const struct routes *r = ctx;
	unsigned good = 0;

	for (unsigned i = 0; i < LOOKUPS; i++)
		good += allowed_ips_lookup4(&r->table, r->addr[i]) == r->expected[i];
	return good;
}

static unsigned turn_lookup6(void *ctx)
{
	const struct routes *r = ctx;
	unsigned good = 0;

	for (unsigned i = 0; i < LOOKUPS; i++)
		good += allowed_ips_lookup6(&r->table, r->addr[i]) == r->expected[i];
	return good;
}

/* turn() itself compares every answer with the naive one; here only that the question is no empty one. */
static void check_routes(void *ctx)
{
	const struct routes *r = ctx;
	unsigned found = 0;

	for (unsigned i = 0; i < LOOKUPS; i++)
		found += r->expected[i] != NULL;
	micro_require(found >= LOOKUPS / 3);
}

static void done_routes(void *ctx)
{
	struct routes *r = ctx;

	allowed_ips_done(&r->table);
	for (unsigned i = 0; i < PEERS; i++)
		peer_free(r->peers[i]);
	free(r->prefix);
	free(r->peer_of);
	free(r);
}

struct indices {
	struct session_table table;
	unsigned nr;
	struct session **entry;
	uint32_t index[LOOKUPS];
	const struct session *expected[LOOKUPS];
};

static void *setup_indices(const struct stage *s, const char **why)
{
	struct indices *x = micro_alloc(sizeof(*x));

	x->nr = s->n;
	x->entry = micro_alloc(x->nr * sizeof(struct session *));
	micro_require(!session_table_init(&x->table));
	for (unsigned i = 0; i < x->nr; i++) {
		x->entry[i] = session_table_add(&x->table, NULL, 0);
		micro_require(x->entry[i]);
	}
	for (unsigned i = 0; i < LOOKUPS; i++) {
		x->expected[i] = x->entry[random_below(x->nr)];
		x->index[i] = x->expected[i]->index;
	}
	return x;
}

static unsigned turn_find(void *ctx)
{
	const struct indices *x = ctx;
	unsigned good = 0;

	for (unsigned i = 0; i < LOOKUPS; i++)
		good += session_table_find(&x->table, x->index[i]) == x->expected[i];
	return good;
}

static void check_find(void *ctx)
{
	const struct indices *x = ctx;
	uint32_t stranger;

	micro_require(turn_find(ctx) == LOOKUPS);
	for (stranger = 0;; stranger++) {
		unsigned i = 0;

		while (i < x->nr && x->entry[i]->index != stranger)
			i++;
		if (i == x->nr)
			break;
	}
	micro_require(!session_table_find(&x->table, stranger));
}

static void done_indices(void *ctx)
{
	struct indices *x = ctx;

	for (unsigned i = 0; i < x->nr; i++)
		session_table_remove(&x->table, x->entry[i]);
	session_table_done(&x->table);
	free(x->entry);
	free(x);
}

void micro_routing_stages(void)
{
	static const unsigned prefixes[] = {1, 1000, 100000};
	static const unsigned sessions[] = {1, 1000, 10000};
	static const struct stage_ops lookup4 = {setup_routes, check_routes, NULL, turn_lookup4, done_routes};
	static const struct stage_ops lookup6 = {setup_routes, check_routes, NULL, turn_lookup6, done_routes};
	static const struct stage_ops find = {setup_indices, check_find, NULL, turn_find, done_indices};
	struct stage s = {.unit = "lookup", .units = LOOKUPS, .hot = true};

	for (unsigned v6 = 0; v6 < 2; v6++) {
		s.ops = v6 ? &lookup6 : &lookup4;
		s.kind = v6 ? "IPv6" : NULL;
		for (unsigned i = 0; i < ARRAY_LEN(prefixes); i++) {
			s.n = prefixes[i];
			micro_add(&s, "allowed-ips/v%u/%u", v6 ? 6 : 4, s.n);
		}
	}
	s.ops = &find;
	s.kind = NULL;
	for (unsigned i = 0; i < ARRAY_LEN(sessions); i++) {
		s.n = sessions[i];
		micro_add(&s, "index-table/%u", s.n);
	}
}
