#include "core/protocol/allowed_ips.h"

#include <errno.h>
#include <stdlib.h>

#include "core/protocol/peer.h"

/* An IP address, its first bit the highest of hi: an IPv4 address is the upper half of hi. */
struct ip_key {
	uint64_t hi, lo;
};

/*
 * Lookups read the first cache line only. A reader may be at a node that is being unlinked, and finds its way
 * down all the same: what is below stays linked from the node until its grace period ends.
 */
struct allowed_ips_node {
	CACHE_ALIGNED struct allowed_ips_node
		*child[2]; /* RCU-published; by the first bit after the prefix */
	struct ip_key key, mask;
	struct peer *peer; /* RCU-published; NULL: only branches */
	uint8_t cidr;
	uint8_t family;
	/* The state holder's. */
	CACHE_ALIGNED struct cds_list_head of_peer; /* peer->allowed_ips */
	struct allowed_ips_node *parent;
	struct rcu_head rcu;
};

_Static_assert(offsetof(struct allowed_ips_node, of_peer) == CACHE_LINE, "a lookup reads one line of a node");

static struct ip_key prefix_key(const struct ip_prefix *prefix);
static struct ip_key mask_of(unsigned cidr);
static unsigned common_bits(struct ip_key a, struct ip_key b);
static unsigned bit_at(struct ip_key key, unsigned cidr);
static bool covers(const struct allowed_ips_node *node, struct ip_key key);
static struct allowed_ips_node *take_spare(
	struct allowed_ips_spare *spare, const struct ip_prefix *prefix, struct ip_key key, unsigned cidr);
static struct allowed_ips_node **slot_of(struct allowed_ips *t, struct allowed_ips_node *node);
static void adopt(struct allowed_ips_node *parent, struct allowed_ips_node *child);
static struct allowed_ips_node *find_exact(struct allowed_ips *t, const struct ip_prefix *prefix);
static void node_clear(struct allowed_ips *t, struct allowed_ips_node *node);
static void node_free_rcu(struct rcu_head *head);
static void free_all(struct allowed_ips_node *node);

void allowed_ips_init(struct allowed_ips *t)
{
	*t = (struct allowed_ips){0};
}

void allowed_ips_done(struct allowed_ips *t)
{
	free_all(t->root4);
	free_all(t->root6);
	*t = (struct allowed_ips){0};
}

int allowed_ips_spare_alloc(struct allowed_ips_spare *spare)
{
	struct allowed_ips_spare out = {
		.node = {aligned_alloc(CACHE_LINE, sizeof(struct allowed_ips_node)),
			aligned_alloc(CACHE_LINE, sizeof(struct allowed_ips_node))},
	};

	if (!out.node[0] || !out.node[1]) {
		allowed_ips_spare_free(&out);
		return -ENOMEM;
	}
	*spare = out;
	return 0;
}

void allowed_ips_spare_free(struct allowed_ips_spare *spare)
{
	for (unsigned i = 0; i < ARRAY_LEN(spare->node); i++) {
		free(spare->node[i]);
		spare->node[i] = NULL;
	}
}

struct peer *allowed_ips_lookup4(const struct allowed_ips *t, const uint8_t addr[4])
{
	const uint64_t key = (uint64_t)load_be32(addr) << 32;
	const struct allowed_ips_node *node = rcu_dereference(t->root4);
	struct peer *best = NULL;

	while (node && !((key ^ node->key.hi) & node->mask.hi)) {
		struct peer *peer = rcu_dereference(node->peer);

		best = peer ? peer : best;
		/* For a /32 this is a bit past the address, which is zero; it has no children anyway. */
		node = rcu_dereference(node->child[(key >> (63 - node->cidr)) & 1]);
	}
	return best;
}

struct peer *allowed_ips_lookup6(const struct allowed_ips *t, const uint8_t addr[16])
{
	const struct ip_key key = {.hi = load_be64(addr), .lo = load_be64(addr + 8)};
	const struct allowed_ips_node *node = rcu_dereference(t->root6);
	struct peer *best = NULL;

	while (node && covers(node, key)) {
		struct peer *peer = rcu_dereference(node->peer);

		best = peer ? peer : best;
		node = rcu_dereference(node->child[bit_at(key, node->cidr)]);
	}
	return best;
}

void allowed_ips_insert(struct allowed_ips *t, const struct ip_prefix *prefix, struct peer *peer,
	struct allowed_ips_spare *spare)
{
	const struct ip_key key = prefix_key(prefix);
	struct allowed_ips_node **slot = prefix->family == AF_INET ? &t->root4 : &t->root6;
	struct allowed_ips_node *parent = NULL, *node;

	/* Down to the node of this prefix, or to the place where one is missing. */
	for (node = *slot; node && node->cidr <= prefix->cidr && covers(node, key); node = *slot) {
		if (node->cidr == prefix->cidr) {
			if (node->peer == peer)
				return;
			if (node->peer)
				cds_list_del(&node->of_peer);
			else
				t->count++;
			cds_list_add_tail(&node->of_peer, &peer->allowed_ips);
			rcu_assign_pointer(node->peer, peer);
			return;
		}
		parent = node;
		slot = &node->child[bit_at(key, node->cidr)];
	}

	struct allowed_ips_node *new = take_spare(spare, prefix, key, prefix->cidr);
	struct allowed_ips_node *top = new;
	new->peer = peer;
	cds_list_add_tail(&new->of_peer, &peer->allowed_ips);
	t->count++;
	if (node) {
		const unsigned common = MIN(common_bits(node->key, key), MIN(prefix->cidr, node->cidr));

		if (common < prefix->cidr) {
			top = take_spare(spare, prefix, key, common);
			adopt(top, new);
		}
		adopt(top, node);
	}
	top->parent = parent;
	/* The new nodes are complete: readers see all of them or none. */
	rcu_assign_pointer(*slot, top);
}

bool allowed_ips_remove(struct allowed_ips *t, const struct ip_prefix *prefix, struct peer *peer)
{
	struct allowed_ips_node *node = find_exact(t, prefix);

	if (!node || node->peer != peer)
		return false;
	node_clear(t, node);
	return true;
}

void allowed_ips_remove_peer(struct allowed_ips *t, struct peer *peer)
{
	while (!cds_list_empty(&peer->allowed_ips))
		node_clear(t, cds_list_entry(peer->allowed_ips.next, struct allowed_ips_node, of_peer));
}

void allowed_ips_walk(const struct allowed_ips *t, const struct peer *peer,
	bool (*fn)(void *arg, const struct ip_prefix *prefix), void *arg)
{
	struct allowed_ips_node *node;

	cds_list_for_each_entry (node, &peer->allowed_ips, of_peer) {
		struct ip_prefix prefix = {.family = node->family, .cidr = node->cidr};

		if (node->family == AF_INET) {
			store_be32(prefix.addr, (uint32_t)(node->key.hi >> 32));
		} else {
			store_be64(prefix.addr, node->key.hi);
			store_be64(prefix.addr + 8, node->key.lo);
		}
		if (!fn(arg, &prefix))
			return;
	}
}

/* Host bits masked. */
static struct ip_key prefix_key(const struct ip_prefix *prefix)
{
	const struct ip_key mask = mask_of(prefix->cidr);

	assert(prefix->family == AF_INET ? prefix->cidr <= 32 : prefix->cidr <= 128);
	if (prefix->family == AF_INET)
		return (struct ip_key){.hi = ((uint64_t)load_be32(prefix->addr) << 32) & mask.hi};
	return (struct ip_key){
		.hi = load_be64(prefix->addr) & mask.hi, .lo = load_be64(prefix->addr + 8) & mask.lo};
}

static struct ip_key mask_of(unsigned cidr)
{
	return (struct ip_key){
		.hi = cidr == 0 ? 0 : UINT64_MAX << (64 - MIN(cidr, 64u)),
		.lo = cidr <= 64 ? 0 : UINT64_MAX << (128 - cidr),
	};
}

static unsigned common_bits(struct ip_key a, struct ip_key b)
{
	if (a.hi != b.hi)
		return (unsigned)__builtin_clzll(a.hi ^ b.hi);
	if (a.lo != b.lo)
		return 64 + (unsigned)__builtin_clzll(a.lo ^ b.lo);
	return 128;
}

/* The first bit after a prefix of cidr bits. A full-length prefix gives any bit: it has no children. */
static inline unsigned bit_at(struct ip_key key, unsigned cidr)
{
	return (unsigned)((cidr & 64 ? key.lo : key.hi) >> (63 - (cidr & 63))) & 1;
}

static inline bool covers(const struct allowed_ips_node *node, struct ip_key key)
{
	return !(((key.hi ^ node->key.hi) & node->mask.hi) | ((key.lo ^ node->key.lo) & node->mask.lo));
}

static struct allowed_ips_node *take_spare(
	struct allowed_ips_spare *spare, const struct ip_prefix *prefix, struct ip_key key, unsigned cidr)
{
	const unsigned i = spare->node[0] ? 0 : 1;
	struct allowed_ips_node *node = spare->node[i];
	const struct ip_key mask = mask_of(cidr);

	assert(node);
	spare->node[i] = NULL;
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): asserted above, but not in a release */
	*node = (struct allowed_ips_node){
		.key = {.hi = key.hi & mask.hi, .lo = key.lo & mask.lo},
		.mask = mask,
		.cidr = (uint8_t)cidr,
		.family = prefix->family,
	};
	return node;
}

/* The published pointer to node. */
static struct allowed_ips_node **slot_of(struct allowed_ips *t, struct allowed_ips_node *node)
{
	if (node->parent)
		return &node->parent->child[bit_at(node->key, node->parent->cidr)];
	return node->family == AF_INET ? &t->root4 : &t->root6;
}

/* child goes below a parent that is not published yet. */
static void adopt(struct allowed_ips_node *parent, struct allowed_ips_node *child)
{
	parent->child[bit_at(child->key, parent->cidr)] = child;
	child->parent = parent;
}

static struct allowed_ips_node *find_exact(struct allowed_ips *t, const struct ip_prefix *prefix)
{
	const struct ip_key key = prefix_key(prefix);
	struct allowed_ips_node *node = prefix->family == AF_INET ? t->root4 : t->root6;

	while (node && node->cidr < prefix->cidr && covers(node, key))
		node = node->child[bit_at(key, node->cidr)];
	return node && node->cidr == prefix->cidr && covers(node, key) ? node : NULL;
}

/* Takes the peer away from node. Then node, and its parent, leave the trie if they have become needless. */
static void node_clear(struct allowed_ips *t, struct allowed_ips_node *node)
{
	cds_list_del(&node->of_peer);
	rcu_assign_pointer(node->peer, NULL);
	t->count--;

	while (node && !node->peer && !(node->child[0] && node->child[1])) {
		struct allowed_ips_node *child = node->child[0] ? node->child[0] : node->child[1];
		struct allowed_ips_node *parent = node->parent;

		/* Readers reach the child, published long ago, by either path. */
		rcu_assign_pointer(*slot_of(t, node), child);
		if (child)
			child->parent = parent;
		call_rcu(&node->rcu, node_free_rcu);
		node = parent;
	}
}

static void node_free_rcu(struct rcu_head *head)
{
	free(CONTAINER_OF(head, struct allowed_ips_node, rcu));
}

/* Recursion goes no deeper than the longest prefix is long. */
static void free_all(struct allowed_ips_node *node)
{
	if (!node)
		return;
	free_all(node->child[0]);
	free_all(node->child[1]);
	free(node);
}
