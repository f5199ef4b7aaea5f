#include "core/client/reading.h"

#include <ctype.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core/base/array.h"
#include "ring/number.h"

static int add_group(struct reading *r, const char *name);
static struct reading_counter *find(const struct reading_group *g, const char *name);
static int take_key(char base64[READING_KEY_BYTES], const char *hex);
static int add_peer(struct reading *r, const char *hex);
static int add_allowed_ip(struct reading_peer *p, const char *prefix);
static int parse(uint64_t *out, const char *value);

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
	uint64_t number;
	int err;

	if (strcmp(key, "group") == 0)
		return add_group(r, value);
	if (!r->nr_groups)
		return strcmp(key, "public_key") == 0 ? take_key(r->public_key, value) : -EPROTO;
	err = parse(&number, value);
	if (err)
		return err;
	g = &r->groups[r->current];
	c = find(g, key);
	if (!c) {
		err = array_grow(&g->counters, &g->capacity, g->nr + 1, sizeof(*g->counters));
		if (err)
			return err;
		c = &g->counters[g->nr];
		*c = (struct reading_counter){.name = strdup(key)};
		if (!c->name)
			return -ENOMEM;
		g->nr++;
	}
	c->value += number;
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
		return parse(&p->handshake_s, value);
	else if (strcmp(key, "rx_bytes") == 0)
		return parse(&p->rx_bytes, value);
	else if (strcmp(key, "tx_bytes") == 0)
		return parse(&p->tx_bytes, value);
	else if (strcmp(key, "persistent_keepalive_interval") == 0)
		return parse(&p->keepalive_s, value);
	return 0;
}

const struct reading_group *reading_group(const struct reading *r, const char *group)
{
	for (unsigned i = 0; i < r->nr_groups; i++)
		if (strcmp(r->groups[i].name, group) == 0)
			return &r->groups[i];
	return NULL;
}

bool reading_has(const struct reading *r, const char *group, enum metric metric)
{
	const struct reading_group *g = reading_group(r, group);

	return g && find(g, metric_name(metric));
}

uint64_t reading_value(const struct reading *r, const char *group, enum metric metric)
{
	return reading_value_named(r, group, metric_name(metric));
}

uint64_t reading_value_named(const struct reading *r, const char *group, const char *name)
{
	const struct reading_group *g = reading_group(r, group);
	const struct reading_counter *c = g ? find(g, name) : NULL;

	return c ? c->value : 0;
}

uint64_t reading_grown(
	const struct reading *before, const struct reading *after, const char *group, enum metric metric)
{
	return reading_grown_named(before, after, group, metric_name(metric));
}

uint64_t reading_grown_named(
	const struct reading *before, const struct reading *after, const char *group, const char *name)
{
	const uint64_t old = reading_value_named(before, group, name);
	const uint64_t new = reading_value_named(after, group, name);

	return new > old ? new - old : 0;
}

double reading_seconds(const struct reading *before, const struct reading *after)
{
	const uint64_t ns =
		reading_grown(before, after, metrics_group_name(METRICS_GROUP_PROCESS), METRIC_TIME_NS);

	return (double)MAX(ns, 1u) / (double)NS_PER_SEC;
}

bool reading_is_thread(const struct reading_group *group)
{
	for (unsigned i = 0; i < METRICS_GROUP_COUNT; i++)
		if (reading_is_kind(group->name, (enum metrics_group)i))
			return metrics_group_info((enum metrics_group)i)->is_thread;
	return true;
}

bool reading_is_kind(const char *group, enum metrics_group kind)
{
	const struct metrics_group_info *info = metrics_group_info(kind);
	const size_t len = strlen(info->name);

	if (strncmp(group, info->name, len) != 0)
		return false;
	return info->numbered ? isdigit((unsigned char)group[len]) : !group[len];
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

uint64_t reading_bound(const char *bound)
{
	uint64_t number;

	return parse(&number, bound) ? UINT64_MAX : number;
}

uint64_t reading_age_s(uint64_t unix_s)
{
	const time_t now = time(NULL);

	return now > 0 && (uint64_t)now > unix_s ? (uint64_t)now - unix_s : 0;
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
	err = array_grow(&r->groups, &r->groups_capacity, r->nr_groups + 1, sizeof(*r->groups));
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

/* As wg(8) shows it. */
static int take_key(char base64[READING_KEY_BYTES], const char *hex)
{
	uint8_t key[32];
	size_t len;

	if (sodium_hex2bin(key, sizeof(key), hex, strlen(hex), NULL, &len, NULL) || len != sizeof(key))
		return -EPROTO;
	sodium_bin2base64(base64, READING_KEY_BYTES, key, sizeof(key), sodium_base64_VARIANT_ORIGINAL);
	return 0;
}

static int add_peer(struct reading *r, const char *hex)
{
	struct reading_peer peer = {0};
	int err = take_key(peer.public_key, hex);

	if (!err)
		err = array_grow(&r->peers, &r->peers_capacity, r->nr_peers + 1, sizeof(*r->peers));
	if (err)
		return err;
	r->peers[r->nr_peers++] = peer;
	return 0;
}

static int add_allowed_ip(struct reading_peer *p, const char *prefix)
{
	int err = array_grow(
		&p->allowed_ips, &p->allowed_ips_capacity, p->nr_allowed_ips + 1, sizeof(*p->allowed_ips));

	if (err)
		return err;
	p->allowed_ips[p->nr_allowed_ips] = strdup(prefix);
	if (!p->allowed_ips[p->nr_allowed_ips])
		return -ENOMEM;
	p->nr_allowed_ips++;
	return 0;
}

static int parse(uint64_t *out, const char *value)
{
	return number_parse(out, value, strlen(value), 0, UINT64_MAX) ? -EPROTO : 0;
}
