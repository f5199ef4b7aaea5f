#include "core/control/config.h"

#include <errno.h>
#include <stdlib.h>

#include "core/base/array.h"
#include "crypto/secret.h"

/* What a function needs that visits the device, which it does on the state thread. */
struct visit {
	struct config_set *set;
	const struct noise_identity *identity; /* of the private key in the request; NULL: there is none */
	bool source_changed;                   /* port or mark did, so pinned sources may be wrong now */
	uint16_t listen_port;
	uint32_t fwmark;
	bool start; /* the device starts: the first sockets came while the interface is up */
	int err;
};

/* How much a listing needs room for. */
struct counts {
	uint32_t peers, prefixes;
};

static int find_first_of_key(struct config_set *set);
static int compare_sections(const void *a, const void *b, void *arg);
static void visit_check(struct device *dev, void *arg);
static uint64_t prefixes_after(struct device *dev, const struct config_set *set, uint64_t limit);
static bool count_prefix(void *arg, const struct ip_prefix *prefix);
static int allocate(struct config_set *set);
static int prepare_sockets(struct config *c, struct config_set *set, struct udp_sockets **opened);
static void commit(struct config *c, struct visit *visit, struct udp_sockets *opened);
static void visit_apply(struct device *dev, void *arg);
static void apply_peer(struct device *dev, struct config_set *set, struct config_peer *section);
static void apply_prefixes(
	struct device *dev, struct config_set *set, const struct config_peer *section, struct peer *peer);
static void forget_sources(struct device *dev);
static void visit_count(struct device *dev, void *arg);
static void visit_snapshot(struct device *dev, void *arg);
static bool snapshot_prefix(void *arg, const struct ip_prefix *prefix);
static void visit_up(struct device *dev, void *arg);
static void visit_down(struct device *dev, void *arg);
static bool is_own_key(const struct noise_identity *identity, const uint8_t public_key[NOISE_KEY_BYTES]);

void config_set_init(struct config_set *set)
{
	memset(set, 0, sizeof(*set));
}

void config_set_done(struct config_set *set)
{
	for (uint32_t i = 0; i < set->nr_peers; i++)
		peer_free(set->peers[i].made);
	if (set->spares)
		for (uint32_t i = 0; i < set->nr_prefixes; i++)
			allowed_ips_spare_free(&set->spares[i]);
	free(set->spares);
	array_free_secret(set->peers, set->peers_capacity, sizeof(*set->peers));
	array_free(set->prefixes, set->prefixes_capacity, sizeof(*set->prefixes));
	secret_zero(set, sizeof(*set));
}

int config_set_add_peer(struct config_set *set, const uint8_t public_key[NOISE_KEY_BYTES])
{
	struct config_peer *section;
	int err;

	if (set->nr_peers == CONFIG_SET_PEERS_MAX)
		return -E2BIG;
	err = array_grow_secret(&set->peers, &set->peers_capacity, set->nr_peers + 1, sizeof(*set->peers));
	if (err)
		return err;
	section = &set->peers[set->nr_peers++];
	memset(section, 0, sizeof(*section));
	memcpy(section->public_key, public_key, NOISE_KEY_BYTES);
	section->first_prefix = set->nr_prefixes;
	return 0;
}

int config_set_add_prefix(struct config_set *set, const struct ip_prefix *prefix, bool remove)
{
	int err;

	CHECK(set->nr_peers > 0);
	if (set->nr_prefixes == CONFIG_SET_PREFIXES_MAX)
		return -E2BIG;
	err = array_grow(
		&set->prefixes, &set->prefixes_capacity, set->nr_prefixes + 1, sizeof(*set->prefixes));
	if (err)
		return err;
	set->prefixes[set->nr_prefixes].prefix = *prefix;
	set->prefixes[set->nr_prefixes].remove = remove;
	set->nr_prefixes++;
	set->peers[set->nr_peers - 1].nr_prefixes++;
	return 0;
}

void config_set_replace_prefixes(struct config_set *set)
{
	struct config_peer *section;

	CHECK(set->nr_peers > 0);
	section = &set->peers[set->nr_peers - 1];
	section->replace_allowed_ips = true;
	section->nr_prefixes = 0;
	set->nr_prefixes = section->first_prefix;
}

void config_init(struct config *c, const struct config_target *target)
{
	memset(c, 0, sizeof(*c));
	c->target = target;
}

void config_done(struct config *c)
{
	udp_sockets_put(c->sockets);
	c->sockets = NULL;
}

int config_apply(struct config *c, struct config_set *set)
{
	struct visit visit = {.set = set};
	struct noise_identity *identity = NULL;
	struct udp_sockets *opened = NULL;
	int err;

	if (set->has_private_key) {
		identity = secret_alloc(sizeof(*identity));
		if (!identity)
			return -ENOMEM;
		noise_identity_set(identity, set->private_key);
		visit.identity = identity;
	}
	err = find_first_of_key(set);
	if (err)
		goto out;
	c->target->call(c->target->ctx, visit_check, &visit);
	err = visit.err;
	if (err)
		goto out;
	err = allocate(set);
	if (err)
		goto out;
	err = prepare_sockets(c, set, &opened);
	if (err)
		goto out;
	commit(c, &visit, opened);
	if (identity) {
		c->has_public_key = identity->has;
		memcpy(c->public_key, identity->public_key, NOISE_KEY_BYTES);
	}
out:
	secret_free(identity, sizeof(*identity));
	return err;
}

int config_get(struct config *c, struct config_snapshot *out)
{
	struct counts counts;
	int err;

	memset(out, 0, sizeof(*out));
	/* The counts cannot change between the two visits: only this thread changes them. */
	c->target->call(c->target->ctx, visit_count, &counts);
	err = array_grow_secret(&out->peers, &out->peers_capacity, counts.peers, sizeof(*out->peers));
	if (!err)
		err = array_grow(
			&out->prefixes, &out->prefixes_capacity, counts.prefixes, sizeof(*out->prefixes));
	if (err) {
		config_snapshot_done(out);
		return err;
	}
	c->target->call(c->target->ctx, visit_snapshot, out);
	return 0;
}

void config_snapshot_done(struct config_snapshot *s)
{
	array_free_secret(s->peers, s->peers_capacity, sizeof(*s->peers));
	array_free(s->prefixes, s->prefixes_capacity, sizeof(*s->prefixes));
	secret_zero(s, sizeof(*s));
}

int config_link_up(struct config *c)
{
	struct visit visit = {0};
	int err;

	if (c->link_up)
		return 0;
	c->link_up = true;
	err = c->target->open_sockets(&c->sockets, c->listen_port, c->fwmark);
	if (err)
		return err;
	c->listen_port = c->sockets->port;
	c->target->set_sockets(c->target->ctx, c->sockets);
	visit.listen_port = c->listen_port;
	c->target->call(c->target->ctx, visit_up, &visit);
	return 0;
}

void config_link_down(struct config *c)
{
	if (!c->link_up)
		return;
	c->link_up = false;
	if (!c->sockets)
		return;
	c->target->call(c->target->ctx, visit_down, NULL);
	c->target->set_sockets(c->target->ctx, NULL);
	udp_sockets_put(c->sockets);
	c->sockets = NULL;
}

/* By sorting, so that even a hundred thousand sections take little time. */
static int find_first_of_key(struct config_set *set)
{
	uint32_t *order;

	if (set->nr_peers == 0)
		return 0;
	order = calloc(set->nr_peers, sizeof(*order));
	if (!order)
		return -ENOMEM;
	for (uint32_t i = 0; i < set->nr_peers; i++)
		order[i] = i;
	qsort_r(order, set->nr_peers, sizeof(*order), compare_sections, set);
	for (uint32_t i = 0; i < set->nr_peers; i++) {
		struct config_peer *section = &set->peers[order[i]];

		section->first_of_key = order[i];
		if (i > 0 && memcmp(section->public_key, set->peers[order[i - 1]].public_key,
				     NOISE_KEY_BYTES) == 0)
			section->first_of_key = set->peers[order[i - 1]].first_of_key;
	}
	free(order);
	return 0;
}

/* Orders indices of sections by key, and those of one key by their place in the request. */
static int compare_sections(const void *a, const void *b, void *arg)
{
	const struct config_set *set = arg;
	uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
	int order = memcmp(set->peers[i].public_key, set->peers[j].public_key, NOISE_KEY_BYTES);

	return order ? order : i < j ? -1 : i > j;
}

/*
 * Changes nothing: goes through the request to find out which sections add a peer, and whether a limit would
 * be exceeded at any point of it. State thread.
 */
static void visit_check(struct device *dev, void *arg)
{
	struct visit *visit = arg;
	struct config_set *set = visit->set;
	const struct noise_identity *identity = visit->identity ? visit->identity : &dev->identity;
	unsigned nr_peers = set->replace_peers ? 0 : dev->nr_peers;

	/* A peer that has our own public key now is removed before the sections are applied. */
	if (!set->replace_peers && identity->has && device_find_peer(dev, identity->public_key))
		nr_peers--;

	for (uint32_t i = 0; i < set->nr_peers; i++) {
		struct config_peer *section = &set->peers[i];
		struct config_peer *first = &set->peers[section->first_of_key];

		if (is_own_key(identity, section->public_key))
			continue;
		if (section == first)
			first->exists = !set->replace_peers && device_find_peer(dev, section->public_key);
		if (section->remove) {
			nr_peers -= first->exists;
			first->exists = false;
		} else if (!first->exists && !section->update_only) {
			section->adds = true;
			first->exists = true;
			if (++nr_peers > DEVICE_PEERS_MAX) {
				visit->err = -ENOSPC;
				return;
			}
		}
	}
	if (prefixes_after(dev, set, DEVICE_ALLOWED_IPS_MAX) > DEVICE_ALLOWED_IPS_MAX)
		visit->err = -ENOSPC;
}

/*
 * An upper bound of how many prefixes there will be: one that only moves, or that is named twice, counts as
 * new. What the request removes is looked up, which takes time, only if the sum exceeds the limit without it.
 */
static uint64_t prefixes_after(struct device *dev, const struct config_set *set, uint64_t limit)
{
	uint64_t nr = set->replace_peers ? 0 : dev->allowed_ips.count;

	for (uint32_t i = 0; i < set->nr_prefixes; i++)
		nr += !set->prefixes[i].remove;
	if (nr <= limit || set->replace_peers)
		return nr;
	for (uint32_t i = 0; i < set->nr_peers; i++) {
		const struct config_peer *section = &set->peers[i];
		struct peer *peer;
		uint64_t taken = 0;

		if (section->first_of_key != i || !(section->remove || section->replace_allowed_ips))
			continue;
		peer = device_find_peer(dev, section->public_key);
		if (peer)
			allowed_ips_walk(&dev->allowed_ips, peer, count_prefix, &taken);
		nr -= taken;
	}
	return nr;
}

static bool count_prefix(void *arg, const struct ip_prefix *prefix)
{
	++*(uint64_t *)arg;
	return true;
}

static int allocate(struct config_set *set)
{
	for (uint32_t i = 0; i < set->nr_peers; i++) {
		struct config_peer *section = &set->peers[i];

		if (!section->adds)
			continue;
		section->made =
			peer_new(section->public_key, section->has_preshared ? section->preshared : NULL);
		if (!section->made)
			return -ENOMEM;
	}
	if (set->nr_prefixes == 0)
		return 0;
	set->spares = calloc(set->nr_prefixes, sizeof(*set->spares));
	if (!set->spares)
		return -ENOMEM;
	for (uint32_t i = 0; i < set->nr_prefixes; i++) {
		int err = set->prefixes[i].remove ? 0 : allowed_ips_spare_alloc(&set->spares[i]);

		if (err)
			return err;
	}
	return 0;
}

/*
 * Opens new sockets when the port changes, or when there are none although the interface is up; otherwise
 * sets the mark of those that there are. It comes last of all that can fail, so nothing ever has to be
 * undone.
 */
static int prepare_sockets(struct config *c, struct config_set *set, struct udp_sockets **opened)
{
	uint16_t port = set->has_listen_port ? set->listen_port : c->listen_port;
	uint32_t fwmark = set->has_fwmark ? set->fwmark : c->fwmark;
	int err;

	if (!c->link_up)
		return 0;
	if (c->sockets && port == c->sockets->port)
		return fwmark == c->fwmark ? 0 : c->target->set_mark(c->sockets, c->fwmark, fwmark);
	if (!c->sockets && !set->has_listen_port && !set->has_fwmark)
		return 0;
	err = c->target->open_sockets(opened, port, fwmark);
	if (err)
		set->refused_port = port;
	return err;
}

/* Makes the request take effect. opened: new sockets, or NULL. Cannot fail. */
static void commit(struct config *c, struct visit *visit, struct udp_sockets *opened)
{
	const struct config_set *set = visit->set;

	if (opened) {
		c->target->set_sockets(c->target->ctx, opened);
		udp_sockets_put(c->sockets);
		visit->start = !c->sockets;
		c->sockets = opened;
	}
	if (set->has_fwmark && set->fwmark != c->fwmark) {
		c->fwmark = set->fwmark;
		visit->source_changed = true;
	}
	if (set->has_listen_port && set->listen_port != c->listen_port) {
		c->listen_port = set->listen_port;
		visit->source_changed = true;
	}
	if (c->sockets)
		c->listen_port = c->sockets->port;
	visit->listen_port = c->listen_port;
	visit->fwmark = c->fwmark;
	c->target->call(c->target->ctx, visit_apply, visit);
}

/* State thread. */
static void visit_apply(struct device *dev, void *arg)
{
	struct visit *visit = arg;
	struct config_set *set = visit->set;

	dev->listen_port = visit->listen_port;
	dev->fwmark = visit->fwmark;
	if (visit->source_changed)
		forget_sources(dev);
	if (set->replace_peers) {
		while (!cds_list_empty(&dev->peers))
			device_remove_peer(dev, cds_list_first_entry(&dev->peers, struct peer, link));
	}
	/* After the removal, because a new key begins a handshake with every peer that is left. */
	if (set->has_private_key)
		device_set_private_key(dev, set->private_key);
	for (uint32_t i = 0; i < set->nr_peers; i++)
		apply_peer(dev, set, &set->peers[i]);
	if (visit->start)
		device_up(dev);
}

static void apply_peer(struct device *dev, struct config_set *set, struct config_peer *section)
{
	struct peer *peer;

	if (is_own_key(&dev->identity, section->public_key))
		return;
	peer = device_find_peer(dev, section->public_key);
	if (section->remove) {
		if (peer)
			device_remove_peer(dev, peer);
		return;
	}
	if (!peer && section->update_only)
		return;
	if (peer) {
		if (section->has_preshared)
			device_set_preshared(dev, peer, section->preshared);
	} else {
		peer = section->made;
		section->made = NULL;
		device_add_peer(dev, peer);
	}
	if (section->has_endpoint)
		device_set_endpoint(dev, peer, &section->endpoint);
	apply_prefixes(dev, set, section, peer);
	/* Last, because turning it on sends a keepalive, which needs the endpoint. */
	if (section->has_persistent_keepalive)
		device_set_persistent_keepalive(dev, peer, section->persistent_keepalive_s);
}

static void apply_prefixes(
	struct device *dev, struct config_set *set, const struct config_peer *section, struct peer *peer)
{
	if (section->replace_allowed_ips)
		allowed_ips_remove_peer(&dev->allowed_ips, peer);
	for (uint32_t i = section->first_prefix; i < section->first_prefix + section->nr_prefixes; i++) {
		const struct config_prefix *p = &set->prefixes[i];

		if (p->remove)
			(void)allowed_ips_remove(&dev->allowed_ips, &p->prefix, peer);
		else
			allowed_ips_insert(&dev->allowed_ips, &p->prefix, peer, &set->spares[i]);
	}
}

/* A source address that was pinned under another port or mark may not be usable any more. */
static void forget_sources(struct device *dev)
{
	struct cds_list_head *link;

	cds_list_for_each(link, &dev->peers)
	{
		struct peer *peer = cds_list_entry(link, struct peer, link);

		/* An endpoint that is waiting to be taken over would bring its source along later. */
		peer_take_roamed(peer);
		struct endpoint endpoint = peer->endpoint;

		if (!endpoint_is_set(&endpoint))
			continue;
		endpoint_clear_source(&endpoint);
		device_set_endpoint(dev, peer, &endpoint);
	}
}

static void visit_count(struct device *dev, void *arg)
{
	struct counts *counts = arg;

	counts->peers = dev->nr_peers;
	counts->prefixes = dev->allowed_ips.count;
}

static void visit_snapshot(struct device *dev, void *arg)
{
	struct config_snapshot *s = arg;
	struct cds_list_head *link;

	s->has_private_key = dev->identity.has;
	memcpy(s->private_key, dev->identity.private_key, NOISE_KEY_BYTES);
	s->listen_port = dev->listen_port;
	s->fwmark = dev->fwmark;
	cds_list_for_each(link, &dev->peers)
	{
		const struct peer *peer = cds_list_entry(link, struct peer, link);
		struct config_peer_view *view = &s->peers[s->nr_peers];

		CHECK(s->nr_peers < s->peers_capacity);
		s->nr_peers++;
		memcpy(view->public_key, peer->public_key, NOISE_KEY_BYTES);
		memcpy(view->preshared, peer->handshake.preshared, NOISE_KEY_BYTES);
		view->endpoint = peer->endpoint;
		view->last_handshake_ns = peer->last_handshake_realtime_ns;
		view->tx_bytes = atomic_load_explicit(&peer->tx_bytes, memory_order_relaxed);
		view->rx_bytes = atomic_load_explicit(&peer->rx_bytes, memory_order_relaxed) +
				 atomic_load_explicit(&peer->rx_handshake_bytes, memory_order_relaxed);
		view->persistent_keepalive_s = peer->persistent_keepalive_s;
		view->first_prefix = s->nr_prefixes;
		allowed_ips_walk(&dev->allowed_ips, peer, snapshot_prefix, s);
		view->nr_prefixes = s->nr_prefixes - view->first_prefix;
	}
}

static bool snapshot_prefix(void *arg, const struct ip_prefix *prefix)
{
	struct config_snapshot *s = arg;

	CHECK(s->nr_prefixes < s->prefixes_capacity);
	s->prefixes[s->nr_prefixes++] = *prefix;
	return true;
}

static void visit_up(struct device *dev, void *arg)
{
	const struct visit *visit = arg;

	dev->listen_port = visit->listen_port;
	device_up(dev);
}

static void visit_down(struct device *dev, void *arg)
{
	device_down(dev);
}

static bool is_own_key(const struct noise_identity *identity, const uint8_t public_key[NOISE_KEY_BYTES])
{
	return identity->has && memcmp(identity->public_key, public_key, NOISE_KEY_BYTES) == 0;
}
