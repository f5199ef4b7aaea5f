#include "core/client/reading.h"

#include <ctype.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

static int add_group(struct reading *r, const char *name);
static struct reading_counter *find(const struct reading_group *g, const char *name);
static int add_peer(struct reading *r, const char *hex);
static int add_allowed_ip(struct reading_peer *p, const char *prefix);
static int grow(void *array, unsigned nr, unsigned *capacity, size_t item_bytes);

void reading_done(struct reading *r)
{
	for (unsigned i = 0; i < r->nr_groups; i++) {
		for (unsigned j = 0; j < r->groups[i].nr; j++)
			free(r->groups[i].counters[j].name);
		free(r->groups[i].counters);
	}
	for (unsigned i = 0; i < r->nr_peers; i++) {
		for (unsigned j = 0; j < r->peers[i].nr_allowed_ips; j++)
			free(r->peers[i].allowed_ips[j]);
		free(r->peers[i].allowed_ips);
	}
	free(r->groups);
	free(r->peers);
	*r = (struct reading){0};
}

int reading_take_counter(void *arg, const char *key, const char *value)
{
	struct reading *r = arg;
	struct reading_group *g;
	struct reading_counter *c;
	int err;

	if (strcmp(key, "group") == 0)
		return add_group(r, value);
	if (!r->nr_groups)
		return -EPROTO;
	g = &r->groups[r->current];
	c = find(g, key);
	if (!c) {
		err = grow(&g->counters, g->nr, &g->capacity, sizeof(*g->counters));
		if (err)
			return err;
		c = &g->counters[g->nr];
		*c = (struct reading_counter){.name = strdup(key)};
		if (!c->name)
			return -ENOMEM;
		g->nr++;
	}
	c->value += strtoull(value, NULL, 10);
	return 0;
}

int reading_take_peer(void *arg, const char *key, const char *value)
{
	struct reading *r = arg;
	struct reading_peer *p;

	if (strcmp(key, "public_key") == 0)
		return add_peer(r, value);
	if (!r->nr_peers)
		return 0; /* of the interface */
	p = &r->peers[r->nr_peers - 1];
	if (strcmp(key, "allowed_ip") == 0)
		return add_allowed_ip(p, value);
	if (strcmp(key, "endpoint") == 0)
		snprintf(p->endpoint, sizeof(p->endpoint), "%s", value);
	else if (strcmp(key, "last_handshake_time_sec") == 0)
		p->handshake_s = strtoull(value, NULL, 10);
	else if (strcmp(key, "rx_bytes") == 0)
		p->rx_bytes = strtoull(value, NULL, 10);
	else if (strcmp(key, "tx_bytes") == 0)
		p->tx_bytes = strtoull(value, NULL, 10);
	else if (strcmp(key, "persistent_keepalive_interval") == 0)
		p->keepalive_s = (unsigned)strtoul(value, NULL, 10);
	return 0;
}

const struct reading_group *reading_group(const struct reading *r, const char *group)
{
	for (unsigned i = 0; i < r->nr_groups; i++)
		if (strcmp(r->groups[i].name, group) == 0)
			return &r->groups[i];
	return NULL;
}

uint64_t reading_value(const struct reading *r, const char *group, const char *name)
{
	const struct reading_group *g = reading_group(r, group);
	const struct reading_counter *c = g ? find(g, name) : NULL;

	return c ? c->value : 0;
}

uint64_t reading_grown(
	const struct reading *before, const struct reading *after, const char *group, const char *name)
{
	const uint64_t old = reading_value(before, group, name), new = reading_value(after, group, name);

	return new > old ? new - old : 0;
}

double reading_seconds(const struct reading *before, const struct reading *after)
{
	const uint64_t ns = reading_grown(before, after, "process", "time_ns");

	return (double)MAX(ns, 1u) / (double)NS_PER_SEC;
}

bool reading_is_thread(const struct reading_group *group)
{
	return strcmp(group->name, "drops") != 0 && strcmp(group->name, "process") != 0;
}

bool reading_is_kind(const char *group, const char *kind)
{
	const size_t len = strlen(kind);

	return strncmp(group, kind, len) == 0 && (!group[len] || isdigit((unsigned char)group[len]));
}

bool reading_is_bucket(const char *name, size_t *len, const char **bound)
{
	static const char mark[] = ".le_";
	const char *at = strstr(name, mark);

	if (!at)
		return false;
	*len = (size_t)(at - name);
	*bound = at + strlen(mark);
	return true;
}

static int add_group(struct reading *r, const char *name)
{
	int err;

	if (!*name || strlen(name) >= METRICS_GROUP_BYTES)
		return -EPROTO;
	for (unsigned i = 0; i < r->nr_groups; i++) {
		if (strcmp(r->groups[i].name, name) == 0) {
			r->current = i;
			return 0;
		}
	}
	err = grow(&r->groups, r->nr_groups, &r->groups_capacity, sizeof(*r->groups));
	if (err)
		return err;
	r->groups[r->nr_groups] = (struct reading_group){0};
	strcpy(r->groups[r->nr_groups].name, name);
	r->current = r->nr_groups++;
	return 0;
}

static struct reading_counter *find(const struct reading_group *g, const char *name)
{
	for (unsigned i = 0; i < g->nr; i++)
		if (strcmp(g->counters[i].name, name) == 0)
			return &g->counters[i];
	return NULL;
}

static int add_peer(struct reading *r, const char *hex)
{
	uint8_t key[32];
	size_t len;
	int err;

	if (sodium_hex2bin(key, sizeof(key), hex, strlen(hex), NULL, &len, NULL) || len != sizeof(key))
		return -EPROTO;
	err = grow(&r->peers, r->nr_peers, &r->peers_capacity, sizeof(*r->peers));
	if (err)
		return err;
	r->peers[r->nr_peers] = (struct reading_peer){0};
	sodium_bin2base64(r->peers[r->nr_peers++].public_key, READING_KEY_BYTES, key, sizeof(key),
		sodium_base64_VARIANT_ORIGINAL);
	return 0;
}

static int add_allowed_ip(struct reading_peer *p, const char *prefix)
{
	int err = grow(&p->allowed_ips, p->nr_allowed_ips, &p->allowed_ips_capacity, sizeof(*p->allowed_ips));

	if (err)
		return err;
	p->allowed_ips[p->nr_allowed_ips] = strdup(prefix);
	if (!p->allowed_ips[p->nr_allowed_ips])
		return -ENOMEM;
	p->nr_allowed_ips++;
	return 0;
}

/* array: address of the pointer to items. Makes room for one more. */
static int grow(void *array, unsigned nr, unsigned *capacity, size_t item_bytes)
{
	void *items;

	if (nr < *capacity)
		return 0;
	memcpy(&items, array, sizeof(items));
	items = reallocarray(items, nr ? 2 * (size_t)nr : 8, item_bytes);
	if (!items)
		return -ENOMEM;
	memcpy(array, &items, sizeof(items));
	*capacity = nr ? 2 * nr : 8;
	return 0;
}
